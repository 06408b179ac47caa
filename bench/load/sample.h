/* Times that are kept, and what is told of them. */
#ifndef BENCH_SAMPLE_H
#define BENCH_SAMPLE_H

#include "shared.h"

typedef struct {
    int64_t *ns;
    size_t count, room;
} sample;

static void keep(sample *of, int64_t ns) {
    if (of->count == of->room) {
        of->room = of->room ? of->room * 2 : 4096;
        of->ns = must(realloc(of->ns, of->room * sizeof *of->ns));
    }
    of->ns[of->count++] = ns;
}

static int by_size(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return a < b ? -1 : a > b;
}

static double at_share_ms(const sample *of, double share) {
    return of->count ? of->ns[(size_t)(share * (of->count - 1) + 0.5)] / 1e6 : -1;
}

static void print_shares(const char *name, sample *of) {
    qsort(of->ns, of->count, sizeof *of->ns, by_size);
    printf(", \"%s_p50_ms\": %.3f, \"%s_p99_ms\": %.3f, \"%s_max_ms\": %.3f", name, at_share_ms(of, 0.5), name,
           at_share_ms(of, 0.99), name, at_share_ms(of, 1));
}

#endif
