/* What the provider and the load generator have in common: a clock, sockets that never wait, and timers. */
#ifndef BENCH_SHARED_H
#define BENCH_SHARED_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define NS_PER_MS 1000000LL

static inline int64_t now_ns(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (int64_t)at.tv_sec * NS_PER_S + at.tv_nsec;
}

static inline void *must(void *memory) {
    if (!memory) {
        perror("memory");
        exit(1);
    }
    return memory;
}

static inline void set_up_process(void) {
    struct rlimit files = {65536, 65536};
    signal(SIGPIPE, SIG_IGN);
    setrlimit(RLIMIT_NOFILE, &files); /* where it is refused, the run says so: its connections fail */
}

/* The timers are a binary heap. One whose generation is no more its owner's is stale: nothing is ever taken out. */
typedef struct {
    int64_t at_ns;
    void *owner;
    uint32_t generation;
} timer_entry;

static timer_entry *timers;
static int timer_count, timer_room;

static inline void timer_add(int64_t at_ns, void *owner, uint32_t generation) {
    if (timer_count == timer_room) {
        timer_room = timer_room ? timer_room * 2 : 1024;
        timers = must(realloc(timers, timer_room * sizeof *timers));
    }
    int place = timer_count++;
    while (place && timers[(place - 1) / 2].at_ns > at_ns) {
        timers[place] = timers[(place - 1) / 2];
        place = (place - 1) / 2;
    }
    timers[place] = (timer_entry){at_ns, owner, generation};
}

static inline timer_entry timer_take(void) {
    timer_entry first = timers[0], last = timers[--timer_count];
    int place = 0;
    for (;;) {
        int child = 2 * place + 1;
        if (child >= timer_count)
            break;
        if (child + 1 < timer_count && timers[child + 1].at_ns < timers[child].at_ns)
            child++;
        if (last.at_ns <= timers[child].at_ns)
            break;
        timers[place] = timers[child];
        place = child;
    }
    timers[place] = last;
    return first;
}

#endif
