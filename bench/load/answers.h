/* What the provider answers: whole answers, made once, and the events of streams. Facts of the two wires: OpenAI's
   reference of chat completions and embeddings, Anthropic's of messages. */
#ifndef BENCH_ANSWERS_H
#define BENCH_ANSWERS_H

#include "shared.h"

static char chat[4096], embedding[16384], message[4096];
static size_t chat_size, embedding_size, message_size;

static const char CHUNK_HEAD[] =
    "{\"id\":\"chatcmpl-bench0123456789abcdef\",\"object\":\"chat.completion.chunk\","
    "\"created\":1764000000,\"model\":\"bench-model\",\"system_fingerprint\":\"fp_bench\",";

static size_t with_head(char *into, size_t room, const char *body) {
    return snprintf(into, room,
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_bench\r\n"
                    "Content-Length: %zu\r\n\r\n%s", strlen(body), body);
}

static void make_answers(void) {
    char text[700] = "", body[12288], vector[10240] = "";
    while (strlen(text) < 620)
        strcat(text, "Nine of the ten ships came back before the storm. ");
    snprintf(body, sizeof body,
             "{\"id\":\"chatcmpl-bench0123456789abcdef\",\"object\":\"chat.completion\",\"created\":1764000000,"
             "\"model\":\"bench-model\",\"system_fingerprint\":\"fp_bench\",\"choices\":[{\"index\":0,\"message\":"
             "{\"role\":\"assistant\",\"content\":\"%s\",\"refusal\":null},\"logprobs\":null,"
             "\"finish_reason\":\"stop\"}],"
             "\"usage\":{\"prompt_tokens\":42,\"completion_tokens\":137,\"total_tokens\":179,\"prompt_tokens_details\":"
             "{\"cached_tokens\":0,\"audio_tokens\":0},\"completion_tokens_details\":{\"reasoning_tokens\":0}}}", text);
    chat_size = with_head(chat, sizeof chat, body);
    for (int number = 0; number < 512; number++)
        sprintf(vector + strlen(vector), "%s0.%06d", number ? "," : "", 1000 + number * 37);
    snprintf(body, sizeof body,
             "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\"embedding\":[%s]}],"
             "\"model\":\"bench-model\",\"usage\":{\"prompt_tokens\":42,\"total_tokens\":42}}", vector);
    embedding_size = with_head(embedding, sizeof embedding, body);
    snprintf(body, sizeof body,
             "{\"id\":\"msg_bench0123456789\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"bench-model\","
             "\"content\":[{\"type\":\"text\",\"text\":\"%s\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":null,"
             "\"usage\":{\"input_tokens\":42,\"output_tokens\":137}}", text);
    message_size = with_head(message, sizeof message, body);
}

static const char OPENAI_ERROR[] =
    "{\"error\":{\"message\":\"as it was asked\",\"type\":\"bench\",\"param\":null,\"code\":\"bench\"}}";
static const char ANTHROPIC_ERROR[] =
    "{\"type\":\"error\",\"error\":{\"type\":\"bench\",\"message\":\"as it was asked\"}}";
static const char MESSAGE_START[] =
    "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_bench0123456789\",\"type\":\"message\","
    "\"role\":\"assistant\",\"model\":\"bench-model\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"
    "\"usage\":{\"input_tokens\":42,\"output_tokens\":1}}}";
static const char BLOCK_START[] =
    "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}";

/* Each of these writes one event's JSON into `into`, and returns it. */
static const char *openai_chunk(char *into, size_t room, int is_first, int is_last, int64_t at_ns) {
    snprintf(into, room,
             "%s\"choices\":[{\"index\":0,\"delta\":{%s\"content\":\"@t=%lld@ w\"},\"logprobs\":null,"
             "\"finish_reason\":%s}]}",
             CHUNK_HEAD, is_first ? "\"role\":\"assistant\"," : "", (long long)at_ns, is_last ? "\"stop\"" : "null");
    return into;
}

static const char *openai_usage(char *into, size_t room, int chunks) {
    snprintf(into, room,
             "%s\"choices\":[],\"usage\":{\"prompt_tokens\":42,\"completion_tokens\":%d,\"total_tokens\":%d}}",
             CHUNK_HEAD, chunks, 42 + chunks);
    return into;
}

static const char *anthropic_delta(char *into, size_t room, int64_t at_ns) {
    snprintf(into, room,
             "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":"
             "{\"type\":\"text_delta\",\"text\":\"@t=%lld@ w\"}}",
             (long long)at_ns);
    return into;
}

static const char *anthropic_usage(char *into, size_t room, int chunks) {
    snprintf(into, room,
             "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},"
             "\"usage\":{\"output_tokens\":%d}}", chunks);
    return into;
}

#endif
