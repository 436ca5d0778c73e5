/* Sends UndefinedBehaviorSanitizer's reports to files, beside those of AddressSanitizer.
 *
 * Where both runtimes are shared libraries, the log_path of either goes to the first: the second
 * calls a function that both export. It is called here by the library that it belongs to.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>

__attribute__((constructor)) static void report_to_files(void)
{
    const char *path = getenv("DEBUG_REPORTS_UBSAN");
    void *library = dlopen(UBSAN, RTLD_NOW | RTLD_NOLOAD);
    void (*set_path)(const char *);

    *(void **)&set_path = library ? dlsym(library, "__sanitizer_set_report_path") : NULL;
    if (!path || !set_path)
        abort();
    set_path(path);
}
