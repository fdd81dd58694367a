/* Loaded before the C library: stops the process at the instructions where a lock is just taken, or not yet let go. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#define REAL(name) ((int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, #name))

static void stop_here(const char *where) {
    static int calls;
    const char *wish = getenv("STOP_WHERE");
    if (wish && !strcmp(wish, where) && ++calls == atoi(getenv("STOP_AT"))) raise(SIGSTOP);
}

int pthread_mutex_trylock(pthread_mutex_t *mutex) {
    int result = REAL(pthread_mutex_trylock)(mutex);
    if (!result) stop_here("taken");
    return result;
}

int pthread_mutex_unlock(pthread_mutex_t *mutex) {
    stop_here("let go");
    return REAL(pthread_mutex_unlock)(mutex);
}
