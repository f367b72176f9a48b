/* cert.h - the subcommands of sealpost cert that have files of their own. */
#ifndef CLI_CERT_H
#define CLI_CERT_H

int cmd_cert_list(int argc, char **argv);
int cmd_cert_expiring(int argc, char **argv);
int cmd_cert_show(int argc, char **argv);
int cmd_cert_revoke(int argc, char **argv);
int cmd_cert_verify(int argc, char **argv);

#endif
