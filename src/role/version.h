/* version.h - the program's version, from the build. */
#ifndef ROLE_VERSION_H
#define ROLE_VERSION_H

#ifndef SEALPOST_VERSION
#error "the build defines SEALPOST_VERSION"
#endif

#endif
