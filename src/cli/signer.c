/* signer.c - sealpost signer: the process that holds the issuing key. Started by the daemon itself (see ca/ca.h). */
#include "ca/ca.h"
#include "cli/cli.h"

int cmd_signer(int argc, char **argv)
{
	(void)argc, (void)argv;
	ca_signer_main();
}
