//! A Hugging Face tokenizer, with a second way to encode in which text cannot become a control token.

use std::collections::HashSet;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::normalizer::OffsetReferential;
use tokenizers::{AddedVocabulary, Model, OffsetType, PreTokenizedString, PreTokenizer, Tokenizer as HfTokenizer};

use crate::failure::Failure;
use crate::grammar::Compiler;

/// How often `guard` looks again for control tokens in what it has already broken up.
const MAX_GUARD_ROUNDS: usize = 16;

/// What an id stands for; the numbers are part of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum TokenKind {
    None = 0,
    Ordinary = 1,
    Special = 2,
    ByteFallback = 3,
}

pub struct Tokenizer {
    inner: HfTokenizer,
    /// The added vocabulary with its special tokens switched off.
    plain_vocabulary: AddedVocabulary,
    special_ids: HashSet<u32>,
    /// Special tokens that ordinary text must not produce: all but the unknown token and single characters.
    unforgeable_ids: HashSet<u32>,
    vocab_size: u32,
    byte_level: bool,
    byte_fallback: bool,
    /// Made by the first use.
    grammar_compiler: OnceLock<Result<Compiler, Failure>>,
}

impl Tokenizer {
    pub fn from_json(json: &[u8]) -> Result<Self, Failure> {
        let unusable = |e: &dyn std::fmt::Display| Failure::failed_precondition(format!("cannot be used: {e}"));
        let mut inner = HfTokenizer::from_bytes(json).map_err(|e| unusable(&e))?;
        inner.with_truncation(None).map_err(|e| unusable(&e))?;
        inner.with_padding(None);

        let mut plain_vocabulary = inner.get_added_vocabulary().clone();
        plain_vocabulary.set_encode_special_tokens(true);
        let decoder = serde_json::to_value(inner.get_decoder()).map_err(|e| unusable(&e))?;
        let special_ids = special_ids(&inner);
        Ok(Self {
            plain_vocabulary,
            unforgeable_ids: unforgeable_ids(&inner, &special_ids),
            special_ids,
            vocab_size: inner.get_vocab(true).values().max().map_or(0, |id| id + 1),
            byte_level: mentions_type(&decoder, "ByteLevel"),
            byte_fallback: mentions_type(&decoder, "ByteFallback"),
            grammar_compiler: OnceLock::new(),
            inner,
        })
    }

    pub fn vocab_size(&self) -> u32 {
        self.vocab_size
    }

    pub fn encode(&self, text: &str, add_special_tokens: bool, parse_special: bool) -> Result<Vec<u32>, Failure> {
        let vocabulary = if parse_special { self.inner.get_added_vocabulary() } else { &self.plain_vocabulary };
        let pieces = vocabulary.extract_and_normalize(self.inner.get_normalizer(), text);
        self.encode_pieces(pieces, add_special_tokens, !parse_special)
    }

    /// Encodes text in which `guard` has put `breaker` into everything that must not become a control token.
    pub fn encode_guarded(&self, text: &str, breaker: char) -> Result<Vec<u32>, Failure> {
        let vocabulary = self.inner.get_added_vocabulary();
        let mut pieces = vocabulary.extract_and_normalize(self.inner.get_normalizer(), text);
        pieces
            .normalize(|piece| {
                piece.filter(|c| c != breaker);
                Ok(())
            })
            .map_err(library_error)?;
        self.encode_pieces(pieces, false, true)
    }

    /// Puts `breaker` after the first character of every control token that `text` contains.
    pub fn guard(&self, text: &str, breaker: char) -> Result<String, Failure> {
        let mut guarded = text.to_owned();
        for _ in 0..MAX_GUARD_ROUNDS {
            let positions = self.control_token_insides(&guarded);
            if positions.is_empty() {
                return Ok(guarded);
            }
            for position in positions.into_iter().rev() {
                guarded.insert(position, breaker);
            }
        }
        Err(unwritable())
    }

    pub fn decode(&self, ids: &[i32], skip_special: bool) -> Result<String, Failure> {
        let ids = ids.iter().map(|&id| self.checked(id)).collect::<Result<Vec<u32>, Failure>>()?;
        self.inner.decode(&ids, skip_special).map_err(library_error)
    }

    pub fn token_text(&self, id: i32) -> Result<String, Failure> {
        let id = self.checked(id)?;
        let Some(token) = self.inner.id_to_token(id) else {
            return Ok(String::new());
        };
        if self.inner.get_added_vocabulary().simple_id_to_token(id).is_some() {
            return Ok(token);
        }
        if let Some(byte) = self.fallback_byte(&token) {
            return Ok(printable(&[byte]));
        }
        if self.byte_level {
            if let Some(bytes) = token.chars().map(byte_of_char).collect::<Option<Vec<u8>>>() {
                return Ok(printable(&bytes));
            }
        }
        Ok(token.replace('\u{2581}', " "))
    }

    /// The bytes that a token adds to a text; of an added token, its own text. Empty for an id without a token.
    pub fn token_bytes(&self, id: i32) -> Result<Vec<u8>, Failure> {
        let id = self.checked(id)?;
        let Some(token) = self.inner.id_to_token(id) else {
            return Ok(Vec::new());
        };
        if self.inner.get_added_vocabulary().simple_id_to_token(id).is_some() {
            return Ok(token.into_bytes());
        }
        if let Some(byte) = self.fallback_byte(&token) {
            return Ok(vec![byte]);
        }
        if self.byte_level {
            // A token that is not in the alphabet of bytes stands for itself.
            let bytes: Option<Vec<u8>> = token.chars().map(byte_of_char).collect();
            return Ok(bytes.unwrap_or_else(|| token.into_bytes()));
        }
        if self.byte_fallback {
            return Ok(token.replace('\u{2581}', " ").into_bytes());
        }
        Err(Failure::failed_precondition("constraints need a vocabulary of bytes, or one that falls back to bytes"))
    }

    /// The compiler of grammars for this vocabulary.
    pub fn grammar_compiler(&self) -> Result<&Compiler, Failure> {
        self.grammar_compiler.get_or_init(|| Compiler::new(self)).as_ref().map_err(Clone::clone)
    }

    pub fn kind(&self, id: i32) -> TokenKind {
        let Ok(id) = self.checked(id) else {
            return TokenKind::None;
        };
        if self.special_ids.contains(&id) {
            return TokenKind::Special;
        }
        match self.inner.id_to_token(id) {
            None => TokenKind::None,
            Some(token) if self.fallback_byte(&token).is_some() => TokenKind::ByteFallback,
            Some(_) => TokenKind::Ordinary,
        }
    }

    fn encode_pieces(
        &self,
        mut pieces: PreTokenizedString,
        add_special_tokens: bool,
        refuse_forged: bool,
    ) -> Result<Vec<u32>, Failure> {
        if let Some(pre_tokenizer) = self.inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut pieces).map_err(library_error)?;
        }
        pieces
            .tokenize(|piece| {
                let tokens = self.inner.get_model().tokenize(piece.get())?;
                if refuse_forged && tokens.iter().any(|t| self.unforgeable_ids.contains(&t.id)) {
                    return Err(Box::new(unwritable()));
                }
                Ok(tokens)
            })
            .map_err(library_error)?;
        let encoding = pieces.into_encoding(None, 0, OffsetType::None).map_err(library_error)?;
        let encoding = self.inner.post_process(encoding, None, add_special_tokens).map_err(library_error)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// For each control token that the library finds in `text`: the byte position after its first character.
    fn control_token_insides(&self, text: &str) -> Vec<usize> {
        let vocabulary = self.inner.get_added_vocabulary();
        let pieces = vocabulary.extract_and_normalize(self.inner.get_normalizer(), text);
        pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .filter(|(_, _, tokens)| tokens.iter().flatten().any(|token| self.special_ids.contains(&token.id)))
            .map(|(_, (start, end), _)| {
                // A token may have been given the white space before it.
                let token = text[start..end].trim_start();
                end - token.len() + token.chars().next().map_or(0, char::len_utf8)
            })
            .collect()
    }

    fn checked(&self, id: i32) -> Result<u32, Failure> {
        u32::try_from(id).ok().filter(|&id| id < self.vocab_size).ok_or_else(|| {
            Failure::invalid_argument(format!("token id {id} is outside the vocabulary [0, {})", self.vocab_size))
        })
    }

    fn fallback_byte(&self, token: &str) -> Option<u8> {
        if !self.byte_fallback || token.len() != 6 {
            return None;
        }
        let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
        u8::from_str_radix(digits, 16).ok()
    }
}

fn special_ids(tokenizer: &HfTokenizer) -> HashSet<u32> {
    tokenizer
        .get_added_vocabulary()
        .get_added_tokens_decoder()
        .iter()
        .filter(|(_, token)| token.special)
        .map(|(id, _)| *id)
        .collect()
}

fn unforgeable_ids(tokenizer: &HfTokenizer, special_ids: &HashSet<u32>) -> HashSet<u32> {
    let model = serde_json::to_value(tokenizer.get_model()).unwrap_or(Value::Null);
    let unknown = match (&model["unk_token"], &model["unk_id"]) {
        (Value::String(token), _) => tokenizer.token_to_id(token),
        (_, Value::Number(id)) => id.as_u64().and_then(|id| u32::try_from(id).ok()),
        _ => None,
    };
    let is_single_character = |id: u32| tokenizer.id_to_token(id).is_some_and(|token| token.chars().count() == 1);
    special_ids.iter().copied().filter(|&id| Some(id) != unknown && !is_single_character(id)).collect()
}

/// Whether `{"type": name}` occurs anywhere in a serialized component.
fn mentions_type(component: &Value, name: &str) -> bool {
    match component {
        Value::Object(fields) => {
            fields.get("type").is_some_and(|t| t == name) || fields.values().any(|value| mentions_type(value, name))
        }
        Value::Array(items) => items.iter().any(|item| mentions_type(item, name)),
        _ => false,
    }
}

/// The byte that a character of a byte-level vocabulary stands for: GPT-2 shows the bytes that are printable in
/// Latin-1 as themselves and the others, in ascending order, as U+0100 and up
/// (https://github.com/openai/gpt-2/blob/master/src/encoder.py).
fn byte_of_char(c: char) -> Option<u8> {
    let is_shown_as_itself = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match u32::from(c) {
        code @ 0..=0xFF => u8::try_from(code).ok().filter(|&b| is_shown_as_itself(b)),
        code => (0..=0xFFu8).filter(|&b| !is_shown_as_itself(b)).nth(usize::try_from(code - 0x100).ok()?),
    }
}

/// Bytes as text, those that are not UTF-8 as \xNN.
fn printable(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02X}"));
        }
    }
    text
}

fn unwritable() -> Failure {
    Failure::invalid_argument("the text contains a control token that this vocabulary cannot write as ordinary text")
}

fn library_error(error: tokenizers::Error) -> Failure {
    match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) => Failure::internal(format!("the tokenizers library failed: {error}")),
    }
}
