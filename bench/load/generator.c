/* Load on a gateway: one thread, epoll, HTTP/1.1 with keep-alive, 127.0.0.1 only. Prints one line of JSON.

     generator -p PORT -b BODY_FILE [-u PATH] [-c CONNECTIONS] [-d SECONDS] [-w WARM_SECONDS] [-n MOST_REQUESTS]
               [-r RATE] [-g STAGGER_SECONDS] [-t TIMEOUT_SECONDS] [-s] [-k SECONDS] [-1]
               [-H 'Name: value']...

   Without -r each connection sends its next request when it has its answer (a closed loop). With it requests begin at
   fixed times, and latency counts from the time at which a request was due, however late it could be sent (an open
   loop). -g spreads the first requests over that time. -s reads streams: an answer is right when it ends with [DONE].
   -k leaves out gaps and delays of chunks that came in these first seconds, while the streams were opened. -1 sends one
   request a connection. All times that are printed are milliseconds; -1 where there are none. */
#include "sample.h"
#include "shared.h"

enum state { CONNECTING, RESTING, HEAD, BODY };
enum part { SIZE, DATA, DATA_END, TRAILER };

typedef struct {
    int fd, status, is_chunked, closes, is_used, is_done;
    enum state state;
    enum part part;
    int64_t began_ns, first_ns, last_ns;
    long length, got, left;
    char head[16384], line[4096];
    int head_size, line_size, sent, chunks;
    uint32_t generation;
} connection;

static int poller, port, connections = 1, reads_streams, is_one_shot, started, resting, active, is_over;
static double rate, seconds = 5, warm_s, stagger_s, skip_s, timeout_s = 60;
static long most_requests = 1000000000, issued, due_count, due_taken, due_room;
static int64_t begin_ns, measure_ns, chunks_ns, end_ns, *due_ns;
static char *request, complaint[400];
static int request_size;
static connection *all, **rest;
static unsigned long right, failed, refused, timeouts, unfinished, chunks;
static int last_refusal;
static sample latency, first_chunk, gap, delay;

static void begin(connection *one, int64_t at_ns);

static void watch(connection *one, int events, int operation) {
    struct epoll_event event = {.events = events, .data.ptr = one};
    epoll_ctl(poller, operation, one->fd, &event);
}

static void hang_up(connection *one) {
    one->generation++;
    if (one->fd >= 0)
        close(one->fd);
    one->fd = -1;
}

static void send_rest(connection *one) {
    while (one->sent < request_size) {
        ssize_t sent = send(one->fd, request + one->sent, request_size - one->sent, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN)
                watch(one, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            return; /* any other failure shows when the answer is read */
        }
        one->sent += sent;
    }
    watch(one, EPOLLIN, EPOLL_CTL_MOD);
}

static void go_on(connection *one) {
    int64_t at_ns = now_ns();
    one->state = RESTING;
    if (is_over || issued >= most_requests || is_one_shot || at_ns >= end_ns)
        rest[resting++] = one;
    else if (rate <= 0)
        begin(one, at_ns);
    else if (due_taken < due_count)
        begin(one, due_ns[due_taken++]);
    else
        rest[resting++] = one;
}

static void finish(connection *one, int came) {
    int64_t at_ns = now_ns();
    active--;
    if (!came) {
        failed++;
        hang_up(one);
    } else if (one->status != 200) {
        refused++;
        last_refusal = one->status;
    } else if (reads_streams && !one->is_done) {
        unfinished++;
    } else if (one->began_ns >= measure_ns) {
        right++;
        keep(&latency, at_ns - one->began_ns);
        chunks += one->chunks;
        if (one->first_ns)
            keep(&first_chunk, one->first_ns - one->began_ns);
    }
    if (came && one->closes)
        hang_up(one);
    one->generation++;
    go_on(one);
}

static void begin(connection *one, int64_t at_ns) {
    connection fresh = {.fd = one->fd, .began_ns = at_ns, .length = -1, .generation = one->generation + 1};
    /* the long buffers need no clearing */
    memcpy(one, &fresh, offsetof(connection, head));
    one->head_size = one->line_size = one->sent = one->chunks = 0;
    one->generation = fresh.generation;
    issued++;
    active++;
    timer_add(now_ns() + (int64_t)(timeout_s * NS_PER_S), one, one->generation);
    if (one->fd >= 0) {
        one->state = HEAD;
        one->is_used = 1;
        send_rest(one);
        return;
    }
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int yes = 1;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(one->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    one->state = CONNECTING;
    if (one->fd < 0 || (connect(one->fd, (void *)&address, sizeof address) && errno != EINPROGRESS))
        finish(one, 0);
    else
        watch(one, EPOLLOUT, EPOLL_CTL_ADD);
}

static void read_line(connection *one, int64_t at_ns) {
    one->line[one->line_size] = 0;
    if (strncmp(one->line, "data:", 5))
        return;
    char *said = one->line + 5 + strspn(one->line + 5, " ");
    if (!strncmp(said, "[DONE]", 6))
        one->is_done = 1;
    char *stamp = strstr(said, "@t=");
    if (!stamp)
        return;
    one->chunks++;
    if (one->began_ns >= measure_ns && at_ns >= chunks_ns) {
        keep(&delay, at_ns - atoll(stamp + 3));
        if (one->last_ns && one->last_ns >= chunks_ns)
            keep(&gap, at_ns - one->last_ns);
    }
    if (!one->first_ns)
        one->first_ns = at_ns;
    one->last_ns = at_ns;
}

static void read_body(connection *one, const char *bytes, long size, int64_t at_ns) {
    if (one->status != 200) {
        size_t has = strlen(complaint), room = 300 > has ? 300 - has : 0;
        size_t more = (size_t)size < room ? (size_t)size : room;
        memcpy(complaint + has, bytes, more);
        complaint[has + more] = 0;
    } else if (reads_streams) {
        for (long at = 0; at < size; at++) {
            if (bytes[at] == '\n') {
                read_line(one, at_ns);
                one->line_size = 0;
            } else if (bytes[at] != '\r' && one->line_size < (int)sizeof one->line - 1) {
                one->line[one->line_size++] = bytes[at];
            }
        }
    }
}

/* Reads a piece of the head. Returns how much of it was the head's, -1 for a head without end. */
static long read_head(connection *one, const char *bytes, long size) {
    int before = one->head_size, room = (int)sizeof one->head - 1 - before;
    int more = size < room ? size : room;
    memcpy(one->head + before, bytes, more);
    one->head_size += more;
    one->head[one->head_size] = 0;
    char *end = strstr(one->head, "\r\n\r\n");
    if (!end)
        return more == room ? -1 : more;
    one->status = atoi(one->head + strlen("HTTP/1.1 "));
    for (char *line = one->head; line < end; line = strstr(line, "\r\n") + 2) {
        if (!strncasecmp(line, "content-length:", 15))
            one->length = atol(line + 15);
        else if (!strncasecmp(line, "transfer-encoding: chunked", 26))
            one->is_chunked = 1;
        else if (!strncasecmp(line, "connection: close", 17))
            one->closes = 1;
    }
    one->state = BODY;
    return end + 4 - one->head - before;
}

/* Reads a piece of a chunked body (RFC 9112, section 7.1). Returns how much it took; *over says whether that is all. */
static long read_chunked(connection *one, const char *bytes, long size, int64_t at_ns, int *over) {
    long took = 1;
    switch (one->part) {
    case SIZE:
        if (isxdigit((unsigned char)*bytes)) {
            int digit = tolower((unsigned char)*bytes);
            one->left = one->left * 16 + (isdigit(digit) ? digit - '0' : digit - 'a' + 10);
        } else if (*bytes == '\n') {
            one->part = one->left ? DATA : TRAILER;
            one->got = 0;
        }
        break;
    case DATA:
        took = size < one->left ? size : one->left;
        read_body(one, bytes, took, at_ns);
        if (!(one->left -= took))
            one->part = DATA_END;
        break;
    case DATA_END:
        if (*bytes == '\n')
            one->part = SIZE;
        break;
    case TRAILER:
        *over = *bytes == '\n' && !one->got;
        one->got = *bytes == '\n' ? 0 : one->got + (*bytes != '\r');
        break;
    }
    return took;
}

/* Returns 1 when the answer is there in full, -1 where it is none. */
static int read_answer(connection *one, const char *bytes, long size, int64_t at_ns) {
    int over = 0;
    while (size > 0 && !over) {
        long took;
        if (one->state == HEAD) {
            took = read_head(one, bytes, size);
            if (took < 0)
                return -1;
            over = one->state == BODY && !one->is_chunked && one->length == 0;
        } else if (one->is_chunked) {
            took = read_chunked(one, bytes, size, at_ns, &over);
        } else {
            took = one->length >= 0 && size > one->length - one->got ? one->length - one->got : size;
            read_body(one, bytes, took, at_ns);
            one->got += took;
            over = one->length >= 0 && one->got >= one->length;
        }
        bytes += took;
        size -= took;
    }
    return over;
}

static void take_in(connection *one) {
    static char bytes[1 << 18];
    ssize_t got = recv(one->fd, bytes, sizeof bytes, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (one->state == RESTING) { /* the other side closed it between two requests */
        if (got <= 0)
            hang_up(one);
    } else if (got > 0) {
        int over = read_answer(one, bytes, got, now_ns());
        if (over)
            finish(one, over > 0);
    } else if (got == 0 && one->state == BODY && !one->is_chunked && one->length < 0) {
        one->closes = 1;
        finish(one, 1);
    } else if (one->state == HEAD && one->is_used && !one->head_size) {
        /* closed just as the request was sent: a client sends it again on a new connection (RFC 9110, 9.2.2) */
        active--;
        issued--;
        hang_up(one);
        begin(one, one->began_ns);
    } else {
        finish(one, 0);
    }
}

static void handle(connection *one, uint32_t events) {
    if (one->fd < 0)
        return;
    if (one->state == CONNECTING) {
        int error = 0;
        socklen_t size = sizeof error;
        getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error) {
            finish(one, 0);
            return;
        }
        one->state = HEAD;
        send_rest(one);
        return;
    }
    if (one->state == HEAD && events & EPOLLOUT && one->sent < request_size)
        send_rest(one);
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        take_in(one);
}

static void run_timers(int64_t at_ns) {
    while (timer_count && timers[0].at_ns <= at_ns) {
        timer_entry due = timer_take();
        connection *one = due.owner;
        if (one->generation != due.generation || one->state == RESTING)
            continue;
        timeouts++;
        finish(one, 0);
    }
}

static void read_request(const char *path, const char *headers, const char *body_file) {
    FILE *file = fopen(body_file, "rb");
    if (!file || fseek(file, 0, SEEK_END)) {
        perror(body_file);
        exit(2);
    }
    long size = ftell(file);
    rewind(file);
    request = must(malloc(size + 16384));
    request_size = snprintf(request, 16384,
                            "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nAccept: %s\r\n"
                            "User-Agent: bench\r\n%sContent-Length: %ld\r\n\r\n",
                            path, port, reads_streams ? "text/event-stream, application/json" : "application/json",
                            headers, size);
    if (fread(request + request_size, 1, size, file) != (size_t)size) {
        perror(body_file);
        exit(2);
    }
    request_size += size;
    fclose(file);
}

static int64_t sooner(int64_t wait_ns, int64_t other_ns) {
    return other_ns < wait_ns ? (other_ns > 0 ? other_ns : 0) : wait_ns;
}

static void run(void) {
    struct epoll_event events[512];
    int64_t next_due_ns = begin_ns, every_ns = rate > 0 ? (int64_t)(NS_PER_S / rate) : 0;
    int64_t give_up_ns = end_ns + (int64_t)((timeout_s + 5) * NS_PER_S);
    for (int64_t at_ns = begin_ns; at_ns <= give_up_ns; at_ns = now_ns()) {
        is_over = is_over || at_ns >= end_ns || issued >= most_requests;
        while (rate <= 0 && started < connections && !is_over && issued < most_requests &&
               at_ns >= begin_ns + (int64_t)(stagger_s * NS_PER_S * started / connections))
            begin(&all[started++], at_ns);
        for (; rate > 0 && !is_over && next_due_ns <= at_ns && due_count < due_room; next_due_ns += every_ns)
            due_ns[due_count++] = next_due_ns;
        while (due_taken < due_count && resting > 0)
            begin(rest[--resting], due_ns[due_taken++]);
        if (!active && due_taken >= due_count && (is_over || (is_one_shot && started >= connections)))
            return;
        int64_t wait_ns = 50 * NS_PER_MS;
        if (rate <= 0 && started < connections)
            wait_ns = NS_PER_MS;
        if (rate > 0 && !is_over)
            wait_ns = sooner(wait_ns, next_due_ns - at_ns);
        if (timer_count)
            wait_ns = sooner(wait_ns, timers[0].at_ns - at_ns);
        struct timespec wait = {0, wait_ns};
        int ready = epoll_pwait2(poller, events, 512, &wait, NULL);
        for (int number = 0; number < ready; number++)
            handle(events[number].data.ptr, events[number].events);
        run_timers(now_ns());
    }
}

static void print_found(void) {
    double elapsed_s = (now_ns() - measure_ns) / 1e9;
    for (char *at = complaint; *at; at++)
        if (*at == '"' || *at == '\\' || (unsigned char)*at < 32 || (unsigned char)*at > 126)
            *at = ' ';
    printf("{\"right\": %lu, \"failed\": %lu, \"refused\": %lu, \"last_refusal\": %d, \"timeouts\": %lu, "
           "\"unfinished\": %lu, \"unsent\": %ld, \"elapsed_s\": %.3f, \"chunks\": %lu",
           right, failed, refused, last_refusal, timeouts, unfinished, due_count - due_taken, elapsed_s, chunks);
    print_shares("latency", &latency);
    print_shares("first_chunk", &first_chunk);
    print_shares("gap", &gap);
    print_shares("delay", &delay);
    printf(", \"complaint\": \"%s\"}\n", complaint);
}

int main(int count, char **arguments) {
    char *path = "/v1/chat/completions", *body_file = NULL, headers[8192] = "";
    size_t headers_size = 0;
    for (int option; (option = getopt(count, arguments, "p:u:c:r:d:n:w:sH:b:t:1g:k:")) > 0;) {
        switch (option) {
        case 'p': port = atoi(optarg); break;
        case 'u': path = optarg; break;
        case 'c': connections = atoi(optarg); break;
        case 'r': rate = atof(optarg); break;
        case 'd': seconds = atof(optarg); break;
        case 'n': most_requests = atol(optarg); break;
        case 'w': warm_s = atof(optarg); break;
        case 's': reads_streams = 1; break;
        case 'b': body_file = optarg; break;
        case 't': timeout_s = atof(optarg); break;
        case '1': is_one_shot = 1; break;
        case 'k': skip_s = atof(optarg); break;
        case 'g': stagger_s = atof(optarg); break;
        case 'H':
            headers_size += snprintf(headers + headers_size, sizeof headers - headers_size, "%s\r\n", optarg);
            if (headers_size < sizeof headers)
                break; /* else too long: as wrong as an option that is none */
            /* fall through */
        default: return 2;
        }
    }
    if (!port || !body_file) {
        fprintf(stderr, "generator -p PORT -b BODY_FILE ...\n");
        return 2;
    }
    set_up_process();
    read_request(path, headers, body_file);
    poller = epoll_create1(0);
    all = must(calloc(connections, sizeof *all));
    rest = must(malloc(sizeof *rest * (connections + 1)));
    for (int number = 0; number < connections; number++) {
        all[number].fd = -1;
        all[number].state = RESTING;
        if (rate > 0)
            rest[resting++] = &all[number];
    }
    due_room = rate > 0 ? (long)(rate * (seconds + warm_s)) + 1000 : 0;
    due_ns = must(malloc(sizeof *due_ns * (due_room + 1)));
    begin_ns = now_ns();
    chunks_ns = begin_ns + (int64_t)(skip_s * NS_PER_S);
    measure_ns = begin_ns + (int64_t)(warm_s * NS_PER_S);
    end_ns = measure_ns + (int64_t)(seconds * NS_PER_S);
    run();
    print_found();
    return 0;
}
