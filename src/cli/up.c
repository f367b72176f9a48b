/* up.c - sealpost up, proxy, worker, server: the long-running commands. */
#include "cli/daemon.h"

int cmd_up(int argc, char **argv)
{
	static const struct daemon_command command = {
		.command = "up",
		.mode = APP_UP,
		.summary =
			"Runs every role in one process on embedded engines: proxy, queue, worker, main server.\n"
			"SIGTERM finishes what was accepted and ends; SIGHUP reloads configuration and certificates.",
		.example = "  sealpost up --data ./data --set ingest_listen=0.0.0.0:8001",
	};
	return daemon_main(&command, argc, argv);
}

int cmd_proxy(int argc, char **argv)
{
	static const struct daemon_command command = {
		.command = "proxy",
		.mode = APP_PROXY,
		.summary =
			"Takes messages from clients, seals them and queues them durably. Follows the main server at\n"
			"server_url for certificates and sealing keys, and goes on with the last ones while it is away.",
		.example = "  sealpost proxy --config /etc/sealpost/proxy.yaml",
	};
	return daemon_main(&command, argc, argv);
}

int cmd_worker(int argc, char **argv)
{
	static const struct daemon_command command = {
		.command = "worker",
		.mode = APP_WORKER,
		.summary = "Delivers queued messages to the main server at server_url, with retries.",
		.example = "  sealpost worker --config /etc/sealpost/worker.yaml",
	};
	return daemon_main(&command, argc, argv);
}

int cmd_server(int argc, char **argv)
{
	static const struct daemon_command command = {
		.command = "server",
		.mode = APP_SERVER,
		.summary =
			"Keeps messages, is the certificate authority, serves administrators, proxies and workers.",
		.example = "  sealpost server --config /etc/sealpost/server.yaml",
	};
	return daemon_main(&command, argc, argv);
}
