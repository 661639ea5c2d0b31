//! String methods as Python defines them, where minijinja's own differ.

use minijinja::value::{from_args, Value, ValueKind};
use minijinja::{Error, State};
use minijinja_contrib::pycompat;

/// The `trim` filter of Jinja2: `str.strip`.
pub fn trim(text: &str, characters: Option<&str>) -> String {
    strip(text, characters, true, true).to_owned()
}

/// Methods that minijinja does not know by itself.
pub fn call_method(state: &State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let ends = match method {
        "strip" => Some((true, true)),
        "lstrip" => Some((true, false)),
        "rstrip" => Some((false, true)),
        _ => None,
    };
    match (ends, value.as_str()) {
        (Some((left, right)), Some(text)) if value.kind() == ValueKind::String => {
            let (characters,): (Option<&str>,) = from_args(args)?;
            Ok(Value::from(strip(text, characters, left, right)))
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn strip<'a>(text: &'a str, characters: Option<&str>, left: bool, right: bool) -> &'a str {
    let goes = |c: char| characters.map_or_else(|| is_python_space(c), |characters| characters.contains(c));
    let text = if left { text.trim_start_matches(goes) } else { text };
    if right {
        text.trim_end_matches(goes)
    } else {
        text
    }
}

/// `str.isspace` also counts the four information separators.
fn is_python_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&c)
}
