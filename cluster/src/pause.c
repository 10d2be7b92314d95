/* The first process of a node and of a Pod: it holds the namespaces, and reaps what is left to it.
 * The same as registry.k8s.io/pause (kubernetes/build/pause/linux/pause.c), and built as static as that. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void end(int signal) {
    _exit(0);
}

static void reap(int signal) {
    while (waitpid(-1, 0, WNOHANG) > 0) {
    }
}

int main(void) {
    struct sigaction ending = {.sa_handler = end};
    struct sigaction reaping = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    sigaction(SIGINT, &ending, 0);
    sigaction(SIGTERM, &ending, 0);
    sigaction(SIGCHLD, &reaping, 0);
    for (;;) {
        reap(0);
        pause();
    }
}
