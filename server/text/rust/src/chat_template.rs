//! Chat templates as transformers runs them, on minijinja.

use std::fmt;

use minijinja::value::{Kwargs, Value};
use minijinja::{context, Environment, Error, ErrorKind, UndefinedBehavior};
use serde_json::Value as Json;

use crate::clock::Clock;
use crate::failure::{catch, Failure};
use crate::python_format;
use crate::python_strings;
use crate::tokenizer::Tokenizer;

const TEMPLATE_NAME: &str = "chat_template";

/// The special token names that transformers gives to a template.
const SPECIAL_TOKEN_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

#[derive(Clone, Debug)]
pub struct Message {
    pub role: String,
    pub content: String,
}

/// What to render besides the messages.
#[derive(Clone, Copy, Debug)]
pub struct RenderOptions {
    pub add_generation_prompt: bool,
    /// Only what follows an assistant's reply that stands before the messages.
    pub continuation: bool,
    pub clock: Clock,
}

pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Strings by name (`bos_token` and so on).
    special_tokens: Value,
}

impl ChatTemplate {
    /// From the text of a model's files, each if it exists. `None` when none of them holds a template.
    pub fn from_files(
        template: Option<&str>,
        tokenizer_config: Option<&str>,
        special_tokens_map: Option<&str>,
    ) -> Result<Option<Self>, Failure> {
        let config = parse_json("tokenizer_config.json", tokenizer_config)?;
        let special = parse_json("special_tokens_map.json", special_tokens_map)?;
        let Some(source) = template.map(str::to_owned).or_else(|| template_of_config(&config)) else {
            return Ok(None);
        };
        let mut environment = new_environment();
        environment
            .add_template_owned(TEMPLATE_NAME, without_generation_tags(&source))
            .map_err(|e| Failure::failed_precondition(format!("the chat template cannot be compiled: {e}")))?;
        let special_tokens = SPECIAL_TOKEN_NAMES
            .iter()
            .filter_map(|&name| {
                let token = token_string(&config[name]).or_else(|| token_string(&special[name]))?;
                Some((name, token))
            })
            .collect();
        Ok(Some(Self { environment, special_tokens }))
    }

    pub fn render(&self, messages: &[Message], options: &RenderOptions) -> Result<String, Failure> {
        if !options.continuation {
            return self.render_all(messages, options);
        }
        let marker = unused_characters(messages, 1)?[0];
        self.render_after_reply(messages, options, marker)
    }

    /// Token ids of the rendered text, in which no role or content can become a control token.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        options: &RenderOptions,
    ) -> Result<Vec<u32>, Failure> {
        let unused = unused_characters(messages, 2)?;
        let (marker, breaker) = (unused[0], unused[1]);
        let guarded = messages
            .iter()
            .map(|message| {
                Ok(Message {
                    role: tokenizer.guard(&message.role, breaker)?,
                    content: tokenizer.guard(&message.content, breaker)?,
                })
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let text = if options.continuation {
            self.render_after_reply(&guarded, options, marker)?
        } else {
            self.render_all(&guarded, options)?
        };
        tokenizer.encode_guarded(&text, breaker)
    }

    fn render_all(&self, messages: &[Message], options: &RenderOptions) -> Result<String, Failure> {
        let turns: Vec<Value> = messages.iter().map(|m| context! { role => m.role, content => m.content }).collect();
        let clock = options.clock;
        let variables = context! {
            messages => turns,
            tools => (),
            documents => (),
            add_generation_prompt => options.add_generation_prompt,
            strftime_now => Value::from_function(move |format: &str| clock.strftime(format)),
            ..self.special_tokens.clone()
        };
        let rendered = catch(|| {
            let template = self.environment.get_template(TEMPLATE_NAME).map_err(|e| render_failure(&e))?;
            template.render(variables).map_err(|e| render_failure(&e))
        });
        // minijinja panics on a few operations that Python can do, such as reversing an empty list by `[::-1]`.
        rendered.map_err(|failure| Failure::invalid_argument(failure.message))
    }

    fn render_after_reply(
        &self,
        messages: &[Message],
        options: &RenderOptions,
        marker: char,
    ) -> Result<String, Failure> {
        // A user turn first: many templates insist on alternating roles.
        let mut conversation = vec![
            Message { role: "user".into(), content: "Hello".into() },
            Message { role: "assistant".into(), content: marker.into() },
        ];
        conversation.extend_from_slice(messages);
        let text = self.render_all(&conversation, options)?;
        let mut parts = text.split(marker);
        match (parts.next(), parts.next(), parts.next()) {
            (Some(_), Some(rest), None) => Ok(rest.to_owned()),
            _ => Err(Failure::failed_precondition(
                "the chat template does not show an assistant's reply exactly once, \
                 so a conversation cannot be continued with it",
            )),
        }
    }
}

/// What a template raised with `raise_exception`.
#[derive(Debug)]
struct TemplateException(String);

impl fmt::Display for TemplateException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for TemplateException {}

fn new_environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_unknown_method_callback(python_strings::call_method);
    environment.add_filter("trim", python_strings::trim);
    environment.set_formatter(python_format::format);
    environment.add_filter("tojson", |value: &Value, kwargs: Kwargs| python_format::tojson(value, kwargs));
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
        let error = Error::new(ErrorKind::InvalidOperation, "raised by the template");
        Err(error.with_source(TemplateException(message)))
    });
    environment
}

fn render_failure(error: &Error) -> Failure {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(exception) = current.downcast_ref::<TemplateException>() {
            return Failure::invalid_argument(format!("the chat template refuses this: {exception}"));
        }
        cause = current.source();
    }
    Failure::invalid_argument(format!("the chat template failed on these messages: {error}"))
}

fn parse_json(file: &str, text: Option<&str>) -> Result<Json, Failure> {
    text.map_or(Ok(Json::Null), |text| {
        serde_json::from_str(text).map_err(|e| Failure::failed_precondition(format!("{file} is not JSON: {e}")))
    })
}

/// "chat_template" as a string, or the template named "default" of a list of named ones.
fn template_of_config(config: &Json) -> Option<String> {
    let template = &config["chat_template"];
    if let Some(text) = template.as_str() {
        return Some(text.to_owned());
    }
    let named = template.as_array()?;
    let default = named.iter().find(|entry| entry["name"] == "default")?;
    default["template"].as_str().map(str::to_owned)
}

/// A token's text, given as a string or as an object with "content".
fn token_string(value: &Json) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// transformers marks the assistant's tokens with `{% generation %}` blocks, which minijinja does not know; the text
/// they enclose is rendered as it is, so an `if` that is always true takes their place.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let Some(length) = rest[start..].find("%}") else { break };
        let (tag, after) = (&rest[start + 2..start + length], &rest[start + length + 2..]);
        let name = tag.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(&rest[..start + 2]);
        match name {
            "generation" => out.push_str(&tag.replace(name, "if true")),
            "endgeneration" => out.push_str(&tag.replace(name, "endif")),
            _ => out.push_str(tag),
        }
        out.push_str("%}");
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Characters that no message contains: noncharacters first, which no text should hold, then private-use ones.
fn unused_characters(messages: &[Message], count: usize) -> Result<Vec<char>, Failure> {
    let unused: Vec<char> = ('\u{FDD0}'..='\u{FDEF}')
        .chain('\u{F0000}'..='\u{FFFFD}')
        .filter(|&c| !messages.iter().any(|m| m.role.contains(c) || m.content.contains(c)))
        .take(count)
        .collect();
    if unused.len() < count {
        return Err(Failure::invalid_argument("the messages use up every private-use character"));
    }
    Ok(unused)
}
