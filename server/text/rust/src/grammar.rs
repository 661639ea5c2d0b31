//! Constrained decoding: which tokens of a vocabulary may follow, by a JSON schema, a regular expression, a list of
//! choices or a Lark grammar, as llguidance computes it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use llguidance::api::{StopReason, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, TokEnv, TokRxInfo, TokTrie, INVALID_TOKEN};
use llguidance::{CancellationHandle, ParserFactory, TokenParser};

use crate::failure::{catch, Failure};
use crate::tokenizer::{TokenKind, Tokenizer};

const MAX_TEXT_BYTES: usize = 256 * 1024;
const MAX_CHOICES: usize = 1000;
/// Brackets inside brackets; the compilers of llguidance recurse.
const MAX_NESTING: usize = 200;
/// Of the thread that compiles: chains of rules recurse as well. Only what is touched takes memory.
const COMPILER_STACK_BYTES: usize = 256 << 20;
const MAX_MESSAGE_BYTES: usize = 1000;

/// What to allow.
pub enum Definition<'a> {
    JsonSchema(&'a str),
    Regex(&'a str),
    Choices(Vec<&'a str>),
    Lark(&'a str),
}

/// Where a grammar is; the numbers are part of the C interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Progress {
    /// The text so far is no whole text of the grammar.
    Open = 0,
    /// It is one, and the beginning of longer ones.
    Whole = 1,
    /// It is one, and nothing may follow.
    Complete = 2,
}

/// Compiles definitions for one vocabulary.
pub struct Compiler {
    factory: ParserFactory,
}

impl Compiler {
    /// Builds the trie of all tokens, which takes a fraction of a second.
    pub fn new(tokenizer: &Tokenizer) -> Result<Self, Failure> {
        let words = vocabulary(tokenizer)?;
        // There is no end-of-sequence token: the caller knows what ends a turn, and asks for `progress`.
        let trie = TokTrie::from(&TokRxInfo::new(tokenizer.vocab_size(), INVALID_TOKEN), &words);
        // Not canonical: the model chooses how to write a text in tokens, so that every mask is that of the bytes alone.
        let environment: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory = ParserFactory::new_simple(&environment)
            .map_err(|e| Failure::failed_precondition(format!("constraints cannot be used: {e}")))?;
        factory.quiet();
        // Lexer states are most of a grammar's memory, 1 to 2 KB each.
        let limits = factory.limits_mut();
        limits.verbose_errors = false;
        limits.max_lexer_states = 20_000;
        limits.max_grammar_size = 200_000;
        Ok(Self { factory })
    }

    pub fn compile(&self, definition: &Definition) -> Result<Grammar, Failure> {
        let top = source(definition)?;
        thread::scope(|scope| {
            let compile = || catch(|| self.start(top));
            let thread = thread::Builder::new().stack_size(COMPILER_STACK_BYTES).spawn_scoped(scope, compile);
            let joined = thread.map_err(|e| Failure::internal(format!("no thread for a grammar: {e}")))?.join();
            joined.unwrap_or_else(|_| Err(Failure::internal("the thread of a grammar panicked")))
        })
    }

    fn start(&self, top: TopLevelGrammar) -> Result<Grammar, Failure> {
        let mut parser = self.factory.create_parser(top).map_err(|e| Failure::invalid_argument(message(&e)))?;
        parser.start_without_prompt();
        let cancellation = parser.enable_cancellation();
        let mut state = State { parser, progress: Progress::Open };
        state.look()?;
        Ok(Grammar { state: Mutex::new(state), cancellation })
    }
}

/// A grammar after some tokens.
pub struct Grammar {
    state: Mutex<State>,
    cancellation: CancellationHandle,
}

struct State {
    parser: TokenParser,
    progress: Progress,
}

impl Grammar {
    pub fn progress(&self) -> Progress {
        self.with(|state| state.progress)
    }

    /// Sets the bits of the tokens that may follow, and clears all others.
    pub fn mask(&self, words: &mut [u32]) -> Result<(), Failure> {
        self.with(|state| state.mask(words))
    }

    /// Takes tokens, each of which must be allowed; after a failure the grammar is of no use.
    pub fn consume(&self, ids: &[i32]) -> Result<(), Failure> {
        self.with(|state| state.consume(ids))
    }

    /// Makes a call that works on another thread, and all later ones, fail soon.
    pub fn cancel(&self) {
        self.cancellation.cancel();
    }

    fn with<T>(&self, body: impl FnOnce(&mut State) -> T) -> T {
        // After a panic the parser says by itself that it is of no use.
        body(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn mask(&mut self, words: &mut [u32]) -> Result<(), Failure> {
        words.fill(0);
        if self.progress == Progress::Complete {
            return Ok(());
        }
        match self.parser.compute_mask() {
            Ok(mask) => {
                let from = mask.as_slice();
                let count = from.len().min(words.len());
                words[..count].copy_from_slice(&from[..count]);
                Ok(())
            }
            Err(_) if self.parser.stop_reason() == StopReason::NoExtensionBias => Ok(()),
            Err(e) => Err(Failure::failed_precondition(message(&e))),
        }
    }

    fn consume(&mut self, ids: &[i32]) -> Result<(), Failure> {
        for &id in ids {
            let token = u32::try_from(id).unwrap_or(INVALID_TOKEN);
            let taken = self.parser.consume_token(token);
            taken.map_err(|e| Failure::failed_precondition(format!("token {id} cannot follow: {}", message(&e))))?;
            self.look()?;
        }
        Ok(())
    }

    fn look(&mut self) -> Result<(), Failure> {
        let stopped = self.parser.check_stop().map_err(|e| Failure::failed_precondition(message(&e)))?;
        self.progress = if stopped {
            Progress::Complete
        } else if self.parser.is_accepting() {
            Progress::Whole
        } else {
            Progress::Open
        };
        Ok(())
    }
}

/// The bytes of every token; those of control tokens have a mark before them that no text has.
fn vocabulary(tokenizer: &Tokenizer) -> Result<Vec<Vec<u8>>, Failure> {
    (0..i32::try_from(tokenizer.vocab_size()).unwrap_or(i32::MAX))
        .map(|id| {
            let mut bytes = tokenizer.token_bytes(id)?;
            if tokenizer.kind(id) == TokenKind::Special {
                bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            }
            Ok(bytes)
        })
        .collect()
}

fn source(definition: &Definition) -> Result<TopLevelGrammar, Failure> {
    match definition {
        Definition::JsonSchema(text) => {
            check_size(text.len())?;
            let schema = serde_json::from_str(text)
                .map_err(|e| Failure::invalid_argument(format!("the schema is not JSON: {e}")))?;
            Ok(TopLevelGrammar::from_json_schema(schema))
        }
        Definition::Regex(text) => {
            check_size(text.len())?;
            check_nesting(text)?;
            Ok(TopLevelGrammar::from_regex(text))
        }
        Definition::Lark(text) => {
            check_size(text.len())?;
            check_nesting(text)?;
            Ok(TopLevelGrammar::from_lark((*text).to_owned()))
        }
        Definition::Choices(choices) => {
            check_size(choices.iter().map(|choice| choice.len()).sum())?;
            if choices.is_empty() || choices.len() > MAX_CHOICES {
                return Err(Failure::invalid_argument(format!(
                    "there are {} choices; give 1 to {MAX_CHOICES}",
                    choices.len()
                )));
            }
            if let Some(empty) = choices.iter().position(|choice| choice.is_empty()) {
                return Err(Failure::invalid_argument(format!("choice {empty} is empty")));
            }
            let escaped: Vec<String> = choices.iter().map(|choice| escaped(choice)).collect();
            Ok(TopLevelGrammar::from_regex(&escaped.join("|")))
        }
    }
}

fn check_size(bytes: usize) -> Result<(), Failure> {
    if bytes <= MAX_TEXT_BYTES {
        return Ok(());
    }
    Err(Failure::invalid_argument(format!("it has {bytes} bytes; at most {MAX_TEXT_BYTES} are allowed")))
}

/// Counts brackets wherever they stand: a grammar with hundreds of lone brackets in its texts is refused too.
fn check_nesting(text: &str) -> Result<(), Failure> {
    let mut depth = 0_usize;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return Err(Failure::invalid_argument(format!(
                "at byte {position}: more than {MAX_NESTING} brackets are open"
            )));
        }
    }
    Ok(())
}

/// A text as a regular expression that matches nothing else.
fn escaped(text: &str) -> String {
    let mut expression = String::new();
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            expression.push(c);
        } else {
            expression.push_str(&format!("\\x{{{:X}}}", u32::from(c)));
        }
    }
    expression
}

/// The library's message with its causes, without the backtrace of a panic.
fn message(error: &anyhow::Error) -> String {
    let whole = format!("{error:#}");
    let mut text = whole.split("\n<").next().unwrap_or_default().trim().to_owned();
    if text.len() > MAX_MESSAGE_BYTES {
        let end = (0..=MAX_MESSAGE_BYTES).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}
