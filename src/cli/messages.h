/* messages.h - the subcommand of sealpost messages that has a file of its own. */
#ifndef CLI_MESSAGES_H
#define CLI_MESSAGES_H

int cmd_messages_follow(int argc, char **argv);

#endif
