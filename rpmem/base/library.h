/*
 * How the functions of a library that is opened at run time are called: by their own names.
 *
 * A list has an entry SEEK(result, name, version, parameters, arguments) for each function. From
 * it come a pointer and a function of that name, which nothing outside this part sees; so functions
 * that a library's own headers define call these too. `version` is the one that the headers
 * describe: a later one may have other arguments.
 */
#ifndef RPMEM_LIBRARY_H
#define RPMEM_LIBRARY_H

#include <stddef.h>

typedef struct {
	const char *name;    /* NULL ends a list */
	const char *version; /* NULL: the library has none */
	void *place;         /* of the pointer */
} rpmem_symbol_t;

/* The names are in brackets because headers have macros of the same names. */
#define RPMEM_CALLED(result, name, version, parameters, arguments)                        \
	static result(*rpmem_at_##name) parameters;                                       \
	__attribute__((visibility("hidden"))) result(name) parameters                     \
	{                                                                                 \
		return rpmem_at_##name arguments;                                         \
	}
#define RPMEM_SOUGHT(result, name, version, parameters, arguments) \
	{ #name, version, &rpmem_at_##name },
#define RPMEM_LIBRARY(table, list)                   \
	list(RPMEM_CALLED)                           \
	static const rpmem_symbol_t table[] = { list(RPMEM_SOUGHT) { NULL, NULL, NULL } };

#endif
