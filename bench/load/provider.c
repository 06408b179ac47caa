/* A provider, and a Braintrust, that cost next to nothing: one thread, epoll, 127.0.0.1 only.

     provider PORT [FILE]

   Chats and embeddings in OpenAI's wire, messages in Anthropic's. How an answer comes is said by words in the first or
   the last 4 KB of the request's body: @LAT=ms@ before it, @N=chunks@ of a stream, @GAP=ms@ between them, @ERR=status@.
   Each chunk holds the moment at which it was sent (@t=ns@, monotonic clock): a reader on the same machine knows its
   delay. What is posted to /logs3 is added to FILE, one body a line. */
#include "answers.h"
#include "shared.h"

enum state { IDLE, WAITING, STREAMING };
enum wire { OPENAI, ANTHROPIC };

typedef struct connection {
    int fd;
    uint32_t generation;
    enum state state;
    enum wire wire;
    int sent_chunks, chunks, wants_out, is_in_ring;
    int64_t gap_ns;
    const char *whole; /* what is sent when the wait is over */
    size_t whole_size;
    char *in, *out;
    size_t in_size, in_room, out_size, out_from, out_room;
    struct connection *next_in_ring, *next_free;
} connection;

#define EDGE_BYTES 4096
#define READ_BYTES 65536 /* a turn: a large body must not hold up the streams of the others */
#define MOST_UNSENT_BYTES 262144

static int poller;
static const char *port_text;
static FILE *posted;
static connection *ring_first, *ring_last, *free_connections;

static void hang_up(connection *one) {
    if (one->fd < 0)
        return;
    close(one->fd);
    free(one->in);
    free(one->out);
    one->fd = -1;
    one->generation++;
    one->in = one->out = NULL;
    if (!one->is_in_ring) { /* one that is in it is freed when its turn comes */
        one->next_free = free_connections;
        free_connections = one;
    }
}

static void watch(connection *one, int wants_out) {
    struct epoll_event event = {.events = EPOLLIN | (wants_out ? EPOLLOUT : 0), .data.ptr = one};
    if (one->wants_out != wants_out)
        epoll_ctl(poller, EPOLL_CTL_MOD, one->fd, &event);
    one->wants_out = wants_out;
}

static void put(connection *one, const char *bytes, size_t size) {
    if (one->out_from == one->out_size)
        one->out_from = one->out_size = 0;
    if (one->out_size + size > one->out_room) {
        one->out_room = (one->out_size + size) * 2;
        one->out = must(realloc(one->out, one->out_room));
    }
    memcpy(one->out + one->out_size, bytes, size);
    one->out_size += size;
}

static void flush(connection *one) {
    while (one->out_from < one->out_size) {
        ssize_t sent = send(one->fd, one->out + one->out_from, one->out_size - one->out_from, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            watch(one, 1);
            return;
        }
        if (sent < 0) {
            hang_up(one);
            return;
        }
        one->out_from += sent;
    }
    watch(one, 0);
}

static void put_chunk(connection *one, const char *bytes, size_t size) {
    char head[16];
    put(one, head, sprintf(head, "%zx\r\n", size));
    put(one, bytes, size);
    put(one, "\r\n", 2);
}

static void put_event(connection *one, const char *kind, const char *json) {
    char event[1024];
    int size = kind ? snprintf(event, sizeof event, "event: %s\ndata: %s\n\n", kind, json)
                    : snprintf(event, sizeof event, "data: %s\n\n", json);
    put_chunk(one, event, size);
}

static void put_openai_chunk(connection *one, int is_first, int is_last) {
    char json[900];
    put_event(one, NULL, openai_chunk(json, sizeof json, is_first, is_last, now_ns()));
    if (is_last) {
        put_event(one, NULL, openai_usage(json, sizeof json, one->chunks));
        put_event(one, NULL, "[DONE]");
    }
}

static void put_anthropic_chunk(connection *one, int is_first, int is_last) {
    char json[600];
    if (is_first) {
        put_event(one, "message_start", MESSAGE_START);
        put_event(one, "content_block_start", BLOCK_START);
    }
    put_event(one, "content_block_delta", anthropic_delta(json, sizeof json, now_ns()));
    if (is_last) {
        put_event(one, "content_block_stop", "{\"type\":\"content_block_stop\",\"index\":0}");
        put_event(one, "message_delta", anthropic_usage(json, sizeof json, one->chunks));
        put_event(one, "message_stop", "{\"type\":\"message_stop\"}");
    }
}

static void put_next_chunk(connection *one) {
    int is_first = one->sent_chunks == 0, is_last = ++one->sent_chunks >= one->chunks;
    if (one->wire == OPENAI)
        put_openai_chunk(one, is_first, is_last);
    else
        put_anthropic_chunk(one, is_first, is_last);
    if (is_last) {
        put(one, "0\r\n\r\n", 5);
        one->state = IDLE;
    }
    flush(one);
}

static void add_to_ring(connection *one) {
    if (one->is_in_ring)
        return;
    one->is_in_ring = 1;
    one->next_in_ring = NULL;
    if (ring_last)
        ring_last->next_in_ring = one;
    else
        ring_first = one;
    ring_last = one;
}

/* Looks at both ends of a body only: looking through 30 MB would hold up everybody else's chunks. */
static char *find(char *body, size_t size, const char *word) {
    size_t edge = size < EDGE_BYTES ? size : EDGE_BYTES;
    char *found = memmem(body, edge, word, strlen(word));
    return found ? found : memmem(body + size - edge, edge, word, strlen(word));
}

static int number_after(char *body, size_t size, const char *word, int otherwise) {
    char *found = find(body, size, word);
    return found ? atoi(found + strlen(word)) : otherwise;
}

static int wants_stream(char *body, size_t size) {
    char *found = find(body, size, "\"stream\"");
    if (!found)
        return 0;
    found += strlen("\"stream\"");
    while (found < body + size && (isspace((unsigned char)*found) || *found == ':'))
        found++;
    return body + size - found >= 4 && !memcmp(found, "true", 4);
}

static void respond(connection *one, int status, const char *json) {
    char answer[2048];
    put(one, answer, snprintf(answer, sizeof answer,
                              "HTTP/1.1 %d Bench\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                              status, strlen(json), json));
    flush(one);
}

static void begin_stream(connection *one, enum wire wire, char *body, size_t size) {
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
                               "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    int wait_ms = number_after(body, size, "@LAT=", 0);
    put(one, head, sizeof head - 1);
    one->state = STREAMING;
    one->wire = wire;
    one->sent_chunks = 0;
    one->chunks = number_after(body, size, "@N=", 100);
    one->gap_ns = number_after(body, size, "@GAP=", 0) * NS_PER_MS;
    if (wait_ms || one->gap_ns)
        timer_add(now_ns() + wait_ms * NS_PER_MS, one, one->generation);
    else
        add_to_ring(one);
    flush(one);
}

static void answer_call(connection *one, enum wire wire, const char *whole, size_t whole_size, char *body,
                        size_t size) {
    int status = number_after(body, size, "@ERR=", 0), wait_ms = number_after(body, size, "@LAT=", 0);
    if (status) {
        respond(one, status, wire == OPENAI ? OPENAI_ERROR : ANTHROPIC_ERROR);
    } else if (wants_stream(body, size)) {
        begin_stream(one, wire, body, size);
    } else if (wait_ms) {
        one->state = WAITING;
        one->whole = whole;
        one->whole_size = whole_size;
        timer_add(now_ns() + wait_ms * NS_PER_MS, one, one->generation);
    } else {
        put(one, whole, whole_size);
        flush(one);
    }
}

static void keep_posted(const char *body, size_t size) {
    if (!posted)
        return;
    if (fwrite(body, 1, size, posted) != size || fputc('\n', posted) == EOF || fflush(posted)) {
        perror("posted rows");
        exit(1);
    }
}

static void handle(connection *one, const char *head, size_t head_size, char *body, size_t size) {
    const char *line_end = memchr(head, '\r', head_size);
    size_t line = line_end ? (size_t)(line_end - head) : head_size;
    char json[600];
#define ASKS(path) memmem(head, line, path, strlen(path))
    if (ASKS("/chat/completions")) {
        answer_call(one, OPENAI, chat, chat_size, body, size);
    } else if (ASKS("/embeddings")) {
        answer_call(one, OPENAI, embedding, embedding_size, body, size);
    } else if (ASKS("/messages")) {
        answer_call(one, ANTHROPIC, message, message_size, body, size);
    } else if (ASKS("/logs3")) {
        keep_posted(body, size);
        respond(one, 200, "{\"ids\":[]}");
    } else if (ASKS("/apikey/login")) {
        snprintf(json, sizeof json,
                 "{\"org_info\":[{\"id\":\"bench-org\",\"name\":\"bench\",\"api_url\":\"http://127.0.0.1:%s\","
                 "\"proxy_url\":\"http://127.0.0.1:%s\",\"realtime_url\":null,\"is_universal_api\":true,"
                 "\"git_metadata\":null}]}", port_text, port_text);
        respond(one, 200, json);
    } else if (ASKS("/v1/project")) {
        respond(one, 200, "{\"id\":\"00000000-0000-4000-8000-000000000001\",\"name\":\"bench\","
                          "\"org_id\":\"bench-org\"}");
    } else if (ASKS("/version")) {
        respond(one, 200, "{\"version\":\"1.1.30\",\"logs3_payload_max_bytes\":4194304}");
    } else if (ASKS("/models")) {
        respond(one, 200, "{\"object\":\"list\",\"data\":[{\"id\":\"bench-model\",\"object\":\"model\","
                          "\"created\":1764000000,\"owned_by\":\"bench\"}]}");
    } else {
        respond(one, 404, "{\"error\":{\"message\":\"nothing here\",\"type\":\"bench\",\"param\":null,\"code\":null}}");
    }
#undef ASKS
}

/* Unpacks a chunked body. Returns the bytes that it took of `from`, or 0 where its end has not come yet. */
static size_t unchunk(const char *from, size_t size, char *into, size_t *unpacked) {
    const char *at = from, *end = from + size;
    *unpacked = 0;
    for (;;) {
        const char *line_end = memmem(at, end - at, "\r\n", 2);
        if (!line_end)
            return 0;
        size_t chunk = strtoul(at, NULL, 16);
        at = line_end + 2;
        if ((size_t)(end - at) < chunk + 2)
            return 0;
        memcpy(into + *unpacked, at, chunk);
        *unpacked += chunk;
        at += chunk + 2;
        if (chunk == 0)
            return at - from;
    }
}

/* Answers the requests that are there in full; one that is being answered keeps those behind it waiting. */
static void process(connection *one) {
    while (one->fd >= 0 && one->state == IDLE && one->in_size) {
        char *head_end = memmem(one->in, one->in_size, "\r\n\r\n", 4);
        if (!head_end)
            return;
        size_t head = head_end + 4 - one->in, length = 0, took;
        int is_chunked = 0;
        for (char *line = one->in; line < head_end; line = (char *)memchr(line, '\n', head_end + 2 - line) + 1) {
            if (!strncasecmp(line, "content-length:", 15))
                length = strtoul(line + 15, NULL, 10);
            else if (!strncasecmp(line, "transfer-encoding: chunked", 26))
                is_chunked = 1;
        }
        if (is_chunked) {
            char *body = must(malloc(one->in_size));
            took = unchunk(one->in + head, one->in_size - head, body, &length);
            if (took)
                handle(one, one->in, head, body, length);
            free(body);
            if (!took)
                return;
        } else {
            if (one->in_size < head + length)
                return;
            took = length;
            handle(one, one->in, head, one->in + head, length);
        }
        if (one->fd < 0)
            return;
        one->in_size -= head + took;
        memmove(one->in, one->in + head + took, one->in_size);
    }
}

static void take_in(connection *one) {
    if (one->in_room - one->in_size < READ_BYTES) {
        one->in_room = (one->in_size + READ_BYTES) * 2;
        one->in = must(realloc(one->in, one->in_room));
    }
    ssize_t got = recv(one->fd, one->in + one->in_size, READ_BYTES, 0);
    if (got > 0) {
        one->in_size += got;
        process(one);
    } else if (got == 0 || errno != EAGAIN) {
        hang_up(one);
    }
}

static void take_connections(int listener) {
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK), yes = 1;
        if (fd < 0)
            return;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        connection *one = free_connections;
        uint32_t generation = one ? one->generation : 0;
        if (one)
            free_connections = one->next_free;
        else
            one = must(malloc(sizeof *one));
        *one = (connection){.fd = fd, .generation = generation};
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = one};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

/* Streams without a gap: a chunk for each connection in turn, as a provider under load would send them. */
static void turn_ring(void) {
    connection *one = ring_first, *next;
    ring_first = ring_last = NULL;
    for (; one; one = next) {
        next = one->next_in_ring;
        one->is_in_ring = 0;
        if (one->fd < 0) {
            one->next_free = free_connections;
            free_connections = one;
            continue;
        }
        if (one->out_size - one->out_from < MOST_UNSENT_BYTES)
            put_next_chunk(one);
        if (one->fd >= 0 && one->state == STREAMING)
            add_to_ring(one);
        else
            process(one);
    }
}

static void run_timers(void) {
    int64_t at_ns = now_ns();
    while (timer_count && timers[0].at_ns <= at_ns) {
        timer_entry due = timer_take();
        connection *one = due.owner;
        if (one->fd < 0 || one->generation != due.generation)
            continue;
        if (one->state == WAITING) {
            one->state = IDLE;
            put(one, one->whole, one->whole_size);
            flush(one);
        } else if (one->state == STREAMING && one->gap_ns) {
            put_next_chunk(one);
            if (one->fd >= 0 && one->state == STREAMING)
                timer_add(due.at_ns + one->gap_ns, one, one->generation);
        } else if (one->state == STREAMING) {
            add_to_ring(one);
        }
        process(one);
    }
}

int main(int count, char **arguments) {
    if (count < 2) {
        fprintf(stderr, "provider PORT [FILE]\n");
        return 2;
    }
    port_text = arguments[1];
    if (count > 2 && !(posted = fopen(arguments[2], "a"))) {
        perror(arguments[2]);
        return 1;
    }
    set_up_process();
    make_answers();
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), yes = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port_text))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (void *)&address, sizeof address) || listen(listener, 8192)) {
        perror("bind");
        return 1;
    }
    poller = epoll_create1(0);
    struct epoll_event events[512], first = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &first);
    for (;;) {
        struct timespec wait = {0, 0}, *bound = &wait;
        if (!ring_first && timer_count) {
            int64_t left_ns = timers[0].at_ns - now_ns();
            if (left_ns > 0)
                wait = (struct timespec){left_ns / NS_PER_S, left_ns % NS_PER_S};
        } else if (!ring_first) {
            bound = NULL;
        }
        int ready = epoll_pwait2(poller, events, 512, bound, NULL);
        for (int number = 0; number < ready; number++) {
            connection *one = events[number].data.ptr;
            if (!one) {
                take_connections(listener);
                continue;
            }
            if (one->fd >= 0 && events[number].events & EPOLLOUT)
                flush(one);
            if (one->fd >= 0 && events[number].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                take_in(one);
        }
        turn_ring();
        run_timers();
    }
}
