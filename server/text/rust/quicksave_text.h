/* C interface of the Rust library behind server/text: Hugging Face tokenizers, minijinja chat templates
 * and llguidance grammars.
 *
 * Every function that can fail returns a status code of absl::StatusCode (0 is OK) and, on failure, sets `*error` to a
 * message and leaves its other results untouched. Panics become code 13 (INTERNAL). Buffers that a function sets belong
 * to the caller, who gives them back to the matching free function. Handles may be used from several threads at once,
 * except for freeing them.
 */
#ifndef QUICKSAVE_SERVER_TEXT_RUST_QUICKSAVE_TEXT_H_
#define QUICKSAVE_SERVER_TEXT_RUST_QUICKSAVE_TEXT_H_

/* This is C: NOLINTBEGIN(modernize-deprecated-headers,modernize-use-using,readability-identifier-naming) */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct quicksave_tokenizer quicksave_tokenizer;
typedef struct quicksave_chat_template quicksave_chat_template;
typedef struct quicksave_grammar quicksave_grammar;

/* Borrowed bytes; `data` may be null for "absent" where a function says so, and when `size` is 0. */
typedef struct {
  const char* data;
  size_t size;
} quicksave_view;

typedef struct {
  char* data;
  size_t size;
} quicksave_text;

typedef struct {
  int32_t* data;
  size_t size;
} quicksave_ids;

typedef struct {
  quicksave_view role;
  quicksave_view content;
} quicksave_message;

typedef struct {
  bool add_generation_prompt;
  /* Only the text after an assistant's reply that is put before the messages. */
  bool continuation;
  /* Microseconds since the Unix epoch, for strftime_now. */
  int64_t now_us;
} quicksave_render_options;

enum {
  QUICKSAVE_TOKEN_NONE = 0,
  QUICKSAVE_TOKEN_ORDINARY = 1,
  QUICKSAVE_TOKEN_SPECIAL = 2,
  QUICKSAVE_TOKEN_BYTE_FALLBACK = 3
};

enum {
  QUICKSAVE_GRAMMAR_JSON_SCHEMA = 0,
  QUICKSAVE_GRAMMAR_REGEX = 1,
  QUICKSAVE_GRAMMAR_CHOICES = 2,
  QUICKSAVE_GRAMMAR_LARK = 3
};

enum {
  /* The tokens so far are no whole text of the grammar; they are one; they are one and nothing may follow. */
  QUICKSAVE_GRAMMAR_OPEN = 0,
  QUICKSAVE_GRAMMAR_WHOLE = 1,
  QUICKSAVE_GRAMMAR_COMPLETE = 2
};

void quicksave_text_free(quicksave_text text);
void quicksave_ids_free(quicksave_ids ids);

/* Whether the bytes are well-formed UTF-8. */
bool quicksave_text_is_utf8(quicksave_view text);

/* `json` is the content of a tokenizer.json. */
int32_t quicksave_tokenizer_new(quicksave_view json, quicksave_tokenizer** tokenizer, quicksave_text* error);
void quicksave_tokenizer_free(quicksave_tokenizer* tokenizer);
/* One more than the greatest id. */
int32_t quicksave_tokenizer_vocab_size(const quicksave_tokenizer* tokenizer);
/* One of QUICKSAVE_TOKEN_*; NONE for an id outside the vocabulary. */
int32_t quicksave_tokenizer_kind(const quicksave_tokenizer* tokenizer, int32_t id);
int32_t quicksave_tokenizer_token_text(const quicksave_tokenizer* tokenizer, int32_t id, quicksave_text* text,
                                       quicksave_text* error);
int32_t quicksave_tokenizer_encode(const quicksave_tokenizer* tokenizer, quicksave_view text, bool add_special_tokens,
                                   bool parse_special, quicksave_ids* ids, quicksave_text* error);
int32_t quicksave_tokenizer_decode(const quicksave_tokenizer* tokenizer, const int32_t* ids, size_t count,
                                   bool skip_special, quicksave_text* text, quicksave_text* error);

/* The three views are the contents of chat_template.jinja, tokenizer_config.json and special_tokens_map.json, with null
 * `data` for a file that does not exist. `*chat_template` is set to null when none holds a template. */
int32_t quicksave_chat_template_new(quicksave_view template_source, quicksave_view tokenizer_config,
                                    quicksave_view special_tokens_map, quicksave_chat_template** chat_template,
                                    quicksave_text* error);
void quicksave_chat_template_free(quicksave_chat_template* chat_template);
int32_t quicksave_chat_template_render(const quicksave_chat_template* chat_template, const quicksave_message* messages,
                                       size_t count, const quicksave_render_options* options, quicksave_text* text,
                                       quicksave_text* error);
/* Renders and encodes; roles and contents cannot become control tokens. */
int32_t quicksave_chat_template_encode(const quicksave_chat_template* chat_template,
                                       const quicksave_tokenizer* tokenizer, const quicksave_message* messages,
                                       size_t count, const quicksave_render_options* options, quicksave_ids* ids,
                                       quicksave_text* error);

/* A grammar before its first token. `kind` is one of QUICKSAVE_GRAMMAR_*; CHOICES takes any number of texts, the others
 * one. The first call for a tokenizer builds its trie of tokens. The tokenizer must outlive the grammar. */
int32_t quicksave_grammar_new(const quicksave_tokenizer* tokenizer, int32_t kind, const quicksave_view* texts,
                              size_t count, quicksave_grammar** grammar, quicksave_text* error);
void quicksave_grammar_free(quicksave_grammar* grammar);
/* One of QUICKSAVE_GRAMMAR_OPEN, _WHOLE, _COMPLETE. */
int32_t quicksave_grammar_progress(const quicksave_grammar* grammar);
/* Sets bit `id % 32` of word `id / 32` for each token that may follow and clears all others. No bit is set when nothing
 * may follow; where a turn may end is told by the progress, not here. */
int32_t quicksave_grammar_mask(const quicksave_grammar* grammar, uint32_t* words, size_t count, quicksave_text* error);
/* Takes tokens that may follow. After a failure, of this or of the mask, the grammar can only be freed. */
int32_t quicksave_grammar_consume(const quicksave_grammar* grammar, const int32_t* ids, size_t count,
                                  quicksave_text* error);
/* Makes a call that works on another thread fail soon, and all later ones at once. */
void quicksave_grammar_cancel(const quicksave_grammar* grammar);

#ifdef __cplusplus
}
#endif
/* NOLINTEND(modernize-deprecated-headers,modernize-use-using,readability-identifier-naming) */

#endif /* QUICKSAVE_SERVER_TEXT_RUST_QUICKSAVE_TEXT_H_ */
