//! The C interface of `quicksave_text.h`, where every function is documented. Here text and panics are checked at the
//! edge; the work is done in the modules.
//!
//! All functions share one safety contract: pointers come from C as the header says, that is, views describe readable
//! memory (or are null and empty), handles come from the matching `new` function and are not freed yet, and result
//! pointers are writable.

mod chat_template;
mod clock;
mod failure;
mod grammar;
mod python_format;
mod python_strings;
mod tokenizer;

use std::slice;

use chat_template::{ChatTemplate, Message, RenderOptions};
use clock::Clock;
use failure::{catch, Failure};
use grammar::{Definition, Grammar};
use tokenizer::{TokenKind, Tokenizer};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct View {
    data: *const u8,
    size: usize,
}

#[repr(C)]
pub struct Buffer<T> {
    data: *mut T,
    size: usize,
}

#[repr(C)]
pub struct CMessage {
    role: View,
    content: View,
}

const QUICKSAVE_GRAMMAR_JSON_SCHEMA: i32 = 0;
const QUICKSAVE_GRAMMAR_REGEX: i32 = 1;
const QUICKSAVE_GRAMMAR_CHOICES: i32 = 2;
const QUICKSAVE_GRAMMAR_LARK: i32 = 3;

#[repr(C)]
pub struct CRenderOptions {
    add_generation_prompt: bool,
    continuation: bool,
    now_us: i64,
}

impl<T> Buffer<T> {
    fn new(items: Vec<T>) -> Self {
        let items = Box::leak(items.into_boxed_slice());
        Self { data: items.as_mut_ptr(), size: items.len() }
    }

    unsafe fn free(self) {
        if !self.data.is_null() {
            drop(Box::from_raw(std::ptr::slice_from_raw_parts_mut(self.data, self.size)));
        }
    }
}

unsafe fn items<'a, T>(data: *const T, size: usize) -> &'a [T] {
    if data.is_null() || size == 0 {
        return &[];
    }
    slice::from_raw_parts(data, size)
}

unsafe fn text<'a>(view: View, what: &str) -> Result<&'a str, Failure> {
    std::str::from_utf8(items(view.data, view.size))
        .map_err(|e| Failure::invalid_argument(format!("{what} is not UTF-8 at byte {}", e.valid_up_to())))
}

unsafe fn file<'a>(view: View, name: &str) -> Result<Option<&'a str>, Failure> {
    if view.data.is_null() {
        return Ok(None);
    }
    text(view, name).map(Some).map_err(|e| Failure::failed_precondition(e.message))
}

unsafe fn copied_messages(messages: *const CMessage, count: usize) -> Result<Vec<Message>, Failure> {
    items(messages, count)
        .iter()
        .enumerate()
        .map(|(i, message)| {
            Ok(Message {
                role: text(message.role, &format!("the role of message {i}"))?.to_owned(),
                content: text(message.content, &format!("the content of message {i}"))?.to_owned(),
            })
        })
        .collect()
}

fn render_options(options: &CRenderOptions) -> RenderOptions {
    RenderOptions {
        add_generation_prompt: options.add_generation_prompt,
        continuation: options.continuation,
        clock: Clock(options.now_us),
    }
}

fn signed(ids: Vec<u32>) -> Result<Buffer<i32>, Failure> {
    let ids: Result<Vec<i32>, _> = ids.into_iter().map(i32::try_from).collect();
    ids.map(Buffer::new).map_err(|_| Failure::internal("a token id exceeds 31 bits"))
}

/// Runs `body`, stores its result in `*out` or its message in `*error`, and returns the code.
unsafe fn store<T>(out: *mut T, error: *mut Buffer<u8>, body: impl FnOnce() -> Result<T, Failure>) -> i32 {
    match catch(body) {
        Ok(value) => {
            out.write(value);
            0
        }
        Err(failure) => {
            error.write(Buffer::new(failure.message.into_bytes()));
            failure.code as i32
        }
    }
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_text_free(text: Buffer<u8>) {
    text.free();
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_ids_free(ids: Buffer<i32>) {
    ids.free();
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_text_is_utf8(text: View) -> bool {
    std::str::from_utf8(items(text.data, text.size)).is_ok()
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_tokenizer_new(
    json: View,
    tokenizer: *mut *mut Tokenizer,
    error: *mut Buffer<u8>,
) -> i32 {
    store(tokenizer, error, || {
        let loaded = Tokenizer::from_json(items(json.data, json.size))?;
        Ok(Box::into_raw(Box::new(loaded)))
    })
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(Box::from_raw(tokenizer));
    }
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_tokenizer_vocab_size(tokenizer: *const Tokenizer) -> i32 {
    i32::try_from((*tokenizer).vocab_size()).unwrap_or(i32::MAX)
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_tokenizer_kind(tokenizer: *const Tokenizer, id: i32) -> i32 {
    catch(|| Ok((*tokenizer).kind(id))).unwrap_or(TokenKind::None) as i32
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_tokenizer_token_text(
    tokenizer: *const Tokenizer,
    id: i32,
    text: *mut Buffer<u8>,
    error: *mut Buffer<u8>,
) -> i32 {
    store(text, error, || Ok(Buffer::new((*tokenizer).token_text(id)?.into_bytes())))
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_tokenizer_encode(
    tokenizer: *const Tokenizer,
    input: View,
    add_special_tokens: bool,
    parse_special: bool,
    ids: *mut Buffer<i32>,
    error: *mut Buffer<u8>,
) -> i32 {
    store(ids, error, || {
        let input = text(input, "the text")?;
        signed((*tokenizer).encode(input, add_special_tokens, parse_special)?)
    })
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_tokenizer_decode(
    tokenizer: *const Tokenizer,
    ids: *const i32,
    count: usize,
    skip_special: bool,
    text: *mut Buffer<u8>,
    error: *mut Buffer<u8>,
) -> i32 {
    store(text, error, || {
        let decoded = (*tokenizer).decode(items(ids, count), skip_special)?;
        Ok(Buffer::new(decoded.into_bytes()))
    })
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_chat_template_new(
    template_source: View,
    tokenizer_config: View,
    special_tokens_map: View,
    chat_template: *mut *mut ChatTemplate,
    error: *mut Buffer<u8>,
) -> i32 {
    store(chat_template, error, || {
        let loaded = ChatTemplate::from_files(
            file(template_source, "chat_template.jinja")?,
            file(tokenizer_config, "tokenizer_config.json")?,
            file(special_tokens_map, "special_tokens_map.json")?,
        )?;
        Ok(loaded.map_or(std::ptr::null_mut(), |template| Box::into_raw(Box::new(template))))
    })
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_chat_template_free(chat_template: *mut ChatTemplate) {
    if !chat_template.is_null() {
        drop(Box::from_raw(chat_template));
    }
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_chat_template_render(
    chat_template: *const ChatTemplate,
    messages: *const CMessage,
    count: usize,
    options: *const CRenderOptions,
    text: *mut Buffer<u8>,
    error: *mut Buffer<u8>,
) -> i32 {
    store(text, error, || {
        let messages = copied_messages(messages, count)?;
        let rendered = (*chat_template).render(&messages, &render_options(&*options))?;
        Ok(Buffer::new(rendered.into_bytes()))
    })
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_chat_template_encode(
    chat_template: *const ChatTemplate,
    tokenizer: *const Tokenizer,
    messages: *const CMessage,
    count: usize,
    options: *const CRenderOptions,
    ids: *mut Buffer<i32>,
    error: *mut Buffer<u8>,
) -> i32 {
    store(ids, error, || {
        let messages = copied_messages(messages, count)?;
        signed((*chat_template).encode(&*tokenizer, &messages, &render_options(&*options))?)
    })
}

unsafe fn definition<'a>(kind: i32, texts: *const View, count: usize) -> Result<Definition<'a>, Failure> {
    let texts = items(texts, count)
        .iter()
        .enumerate()
        .map(|(i, view)| text(*view, &if count == 1 { "the text".to_owned() } else { format!("text {i}") }))
        .collect::<Result<Vec<&str>, Failure>>()?;
    match (kind, texts.as_slice()) {
        (QUICKSAVE_GRAMMAR_JSON_SCHEMA, [schema]) => Ok(Definition::JsonSchema(schema)),
        (QUICKSAVE_GRAMMAR_REGEX, [regex]) => Ok(Definition::Regex(regex)),
        (QUICKSAVE_GRAMMAR_LARK, [lark]) => Ok(Definition::Lark(lark)),
        (QUICKSAVE_GRAMMAR_CHOICES, _) => Ok(Definition::Choices(texts)),
        _ => Err(Failure::internal(format!("no grammar of kind {kind} has {count} texts"))),
    }
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_grammar_new(
    tokenizer: *const Tokenizer,
    kind: i32,
    texts: *const View,
    count: usize,
    grammar: *mut *mut Grammar,
    error: *mut Buffer<u8>,
) -> i32 {
    store(grammar, error, || {
        let definition = definition(kind, texts, count)?;
        let compiled = (*tokenizer).grammar_compiler()?.compile(&definition)?;
        Ok(Box::into_raw(Box::new(compiled)))
    })
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_grammar_free(grammar: *mut Grammar) {
    if !grammar.is_null() {
        drop(Box::from_raw(grammar));
    }
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_grammar_progress(grammar: *const Grammar) -> i32 {
    (*grammar).progress() as i32
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_grammar_mask(
    grammar: *const Grammar,
    words: *mut u32,
    count: usize,
    error: *mut Buffer<u8>,
) -> i32 {
    let mut done = ();
    store(&mut done, error, || (*grammar).mask(slice::from_raw_parts_mut(words, count)))
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_grammar_consume(
    grammar: *const Grammar,
    ids: *const i32,
    count: usize,
    error: *mut Buffer<u8>,
) -> i32 {
    let mut done = ();
    store(&mut done, error, || (*grammar).consume(items(ids, count)))
}

/// # Safety
/// See the module.
#[no_mangle]
pub unsafe extern "C" fn quicksave_grammar_cancel(grammar: *const Grammar) {
    (*grammar).cancel();
}
