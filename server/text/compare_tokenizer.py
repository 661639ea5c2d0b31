"""Compares the text library with the reference Python implementation: no difference is allowed.

    compare_tokenizer.py TOKENIZER_DRIVER MODEL_DIR

Encodes and decodes more than 1 MB of generated text (prose and code of Python's own library, every assigned character,
many scripts, emoji, combining marks, control characters, long runs) with the `tokenizers` package and with our driver,
and renders chat templates with jinja2, set up as transformers does, and with our driver.
Needs the packages tokenizers and jinja2.
"""

import datetime
import json
import pathlib
import random
import struct
import subprocess
import sys
import sysconfig
import tempfile
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox
import tokenizers

SEED = 20240607
NOW = 1700000000  # As in tokenizer_driver.cc.
MINIMUM_BYTES = 1_000_000
TEMPLATES = pathlib.Path(__file__).parent / "test_templates"
LIBRARY_FILES = (
    "abc argparse ast asyncio/tasks calendar codecs colorsys csv datetime decimal difflib email/header heapq "
    "json/encoder locale random statistics string tabnanny textwrap this turtle typing unittest/mock"
)
# First and last letter of blocks in many scripts.
SCRIPTS = (
    "0370-03ff 0400-052f 0590-05ff 0600-06ff 0900-097f 0b80-0bff 0e00-0e7f 10a0-10ff 1100-11ff 3040-30ff 4e00-9fff "
    "ac00-d7a3 1f300-1faff 20000-2a6df"
)
# Blocks of which each character is also put between letters, digits and spaces.
DETAILED = ((0, 0x3400), (0xA000, 0xAC00), (0xF900, 0x17000), (0x1B000, 0x20000))

Messages = list[tuple[str, str]]
Failure = tuple[int, str]
T = TypeVar("T")


def library_texts() -> Iterator[str]:
    """Source code and its prose, from Python's standard library."""
    for name in LIBRARY_FILES.split():
        source = (pathlib.Path(sysconfig.get_path("stdlib")) / f"{name}.py").read_text(encoding="utf-8")
        yield from (source[i : i + 8000] for i in range(0, len(source), 8000))


def character_texts() -> Iterator[str]:
    """Every assigned character (surrogates cannot be text) in rows, most also between letters, digits and spaces."""
    assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    for i in range(0, len(assigned), 256):
        row = assigned[i : i + 256]
        yield "".join(row)
        if any(first <= ord(row[0]) < last for first, last in DETAILED):
            yield "".join(f"a{c}b {c} 1{c}" for c in row)


def script_texts(rng: random.Random) -> Iterator[str]:
    """Words of random letters in many scripts."""
    ends = [" ", " ", ", ", ". ", "\n", "\u3000", "\t", "-"]
    for block in SCRIPTS.split():
        first, last = (int(code, 16) for code in block.split("-"))
        letters = [chr(c) for c in range(first, last + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
        for _ in range(24):
            words = ("".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(60))
            yield "".join(word + rng.choice(ends) for word in words)


def combining_texts(rng: random.Random) -> Iterator[str]:
    """Letters with combining marks, as they come and in the four normal forms."""
    marks = [chr(c) for c in range(0x300, 0x370)]
    letters = "aeiounsc AEIOU\u0416\u0434\ud55c\u304b"
    for _ in range(100):
        text = "".join(rng.choice(letters) + "".join(rng.choices(marks, k=rng.randint(0, 4))) for _ in range(120))
        yield text
        for form in ("NFC", "NFD", "NFKC", "NFKD"):
            yield unicodedata.normalize(form, text[:60])


def emoji_texts(rng: random.Random) -> Iterator[str]:
    """Emoji with joiners, selectors, flags and skin tones."""
    parts = [chr(c) for c in range(0x1F300, 0x1F650)]
    parts += ["\u200d", "\ufe0f", "\u20e3", "👩‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇫🇷", "👍🏽", " ", "ok", "1"]
    for _ in range(60):
        yield "".join(rng.choices(parts, k=80))


def odd_texts(rng: random.Random) -> Iterator[str]:
    """Control characters, what stray bytes decode to, mixed white space, contractions, numbers in many forms."""
    controls = [chr(c) for c in [*range(0x20), *range(0x7F, 0xA1)]]
    controls += list("\u2028\u2029\ufeff\ufffd\u200b\u2060\u00ad\ufdd0\uffff")
    spaces = [*" \t\n\r\v\f", "\u00a0", "\u1680", "\u2003", "\u202f", "\u3000", "\u0085"]
    words = ["", "", "a", "é", "9", ".", "'ll", "'S", "don't"]
    forms = ["{}", "-{}", "{}.5e-7", "0x{:x}", "{:,}", "①²½{}", "٣{}"]
    for _ in range(100):
        yield "".join(rng.choice([*controls, "x", " ", "7"]) for _ in range(120))
        yield rng.randbytes(200).decode("utf-8", "replace")
        yield rng.randbytes(200).decode("latin-1")
        yield "".join(rng.choice(spaces) * rng.choice([1, 1, 2, 3, 17]) + rng.choice(words) for _ in range(60))
        yield " ".join(rng.choice(forms).format(rng.randrange(10 ** rng.randint(1, 30))) for _ in range(30))


def run_texts() -> Iterator[str]:
    """Short texts repeated up to thousands of times."""
    units = ["7", "0123456789", " ", "\n", "\r\n", "\t ", "a", "ab", "é", "日", "🙂", "\u0301", "'s", "<|", "!?", "_"]
    for unit in units:
        for count in (1, 2, 3, 4, 15, 16, 17, 127, 1000, 4097):
            yield unit * count
            yield f"x{unit * count}y {unit * count} "


def generated_texts(rng: random.Random, special: list[str]) -> Iterator[str]:
    """All texts; `special` are texts of control tokens, which are mixed in and broken up."""
    yield from ["", " ", "\n", "a", "\x00"]
    yield from library_texts()
    yield from character_texts()
    yield from script_texts(rng)
    yield from combining_texts(rng)
    yield from emoji_texts(rng)
    yield from odd_texts(rng)
    yield from run_texts()
    for _ in range(300):
        yield "".join(rng.choice([*special, " ", "\n", "user", "<|", "|>", "hi", "<", "é"]) for _ in range(12))


def number(value: int) -> bytes:
    """As the driver reads it."""
    return struct.pack("<I", value)


def text_bytes(text: str) -> bytes:
    """As the driver reads it."""
    data = text.encode("utf-8")
    return number(len(data)) + data


class Answers:
    """Reads what the driver wrote."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        self.position += size
        if self.position > len(self.data):
            raise SystemExit("FAILED: the driver's answers end too early")
        return self.data[self.position - size : self.position]

    def number(self) -> int:
        """The next number."""
        return int.from_bytes(self.take(4), "little")

    def text(self) -> str:
        """The next text."""
        return self.take(self.number()).decode("utf-8")

    def ids(self) -> list[int]:
        """The next list of ids."""
        count = self.number()
        return list(struct.unpack(f"<{count}I", self.take(4 * count)))

    def result(self, read: Callable[[], T]) -> T | Failure:
        """The value, or a (code, message) pair for a failure."""
        code = self.number()
        return read() if code == 0 else (code, self.text())


def drive(driver: str, model_dir: str, requests: list[bytes]) -> Answers:
    """Runs the driver on the requests."""
    done = subprocess.run(
        [driver, model_dir], input=b"".join(requests), stdout=subprocess.PIPE, check=True, env={"TZ": "UTC"}
    )
    return Answers(done.stdout)


def expect(same: bool, what: str, mine: object, reference: object) -> None:
    """Ends the program where something differs."""
    if not same:
        raise SystemExit(f"FAILED: {what}\n  ours:      {mine!r}\n  reference: {reference!r}")


def compare_encoding(driver: str, model_dir: str, reference: Any, texts: list[str]) -> list[list[int]]:
    """Each text with and without control tokens; returns the ids with them."""
    plain = tokenizers.Tokenizer.from_str(reference.to_str())
    plain.encode_special_tokens = True
    answers = drive(driver, model_dir, [b"E" + number(flags) + text_bytes(text) for text in texts for flags in (1, 3)])
    encoded = []
    for index, text in enumerate(texts):
        for tokenizer, name in ((plain, "as ordinary text"), (reference, "with control tokens")):
            expected = tokenizer.encode(text).ids
            actual = answers.result(answers.ids)
            expect(actual == expected, f"encoding of text {index} {name}: {text[:200]!r}", actual, expected)
        encoded.append(expected)
    size = sum(len(text.encode("utf-8")) for text in texts)
    print(f"encoded {len(texts)} texts, {size} bytes, to {sum(map(len, encoded))} ids: equal")
    return encoded


def compare_decoding(driver: str, model_dir: str, reference: Any, id_lists: list[list[int]]) -> None:
    """Each list of ids with and without control tokens."""
    requests = [
        b"D" + number(skip) + number(len(ids)) + struct.pack(f"<{len(ids)}I", *ids)
        for ids in id_lists
        for skip in (0, 1)
    ]
    answers = drive(driver, model_dir, requests)
    for index, ids in enumerate(id_lists):
        for skip in (False, True):
            expected = reference.decode(ids, skip_special_tokens=skip)
            actual = answers.result(answers.text)
            expect(actual == expected, f"decoding of list {index}: {ids[:50]}", actual, expected)
    print(f"decoded {len(id_lists)} lists of ids: equal")


def random_ids(rng: random.Random, vocab_size: int) -> list[list[int]]:
    """Lists that no encoder makes: broken characters, control tokens anywhere."""
    return [[rng.randrange(vocab_size) for _ in range(rng.randint(0, 80))] for _ in range(2000)]


class Generation(jinja2.ext.Extension):
    """The tag {% generation %} of transformers: renders its content."""

    tags = {"generation"}  # noqa: RUF012  (declared so by jinja2)

    def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
        """Makes a block that calls its own content."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller: Callable[[], str]) -> str:
        return caller()


class TemplateRefusalError(Exception):
    """Raised by raise_exception in a template."""


def raise_exception(message: str) -> None:
    """The function that transformers gives to templates."""
    raise TemplateRefusalError(message)


def tojson(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """The filter that transformers gives to templates."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def strftime_now(form: str) -> str:
    """The function that transformers gives to templates, at a fixed time."""
    return datetime.datetime.fromtimestamp(NOW, datetime.UTC).strftime(form)


def reference_template(source: str) -> jinja2.Template:
    """Compiles a template as transformers does."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    return environment.from_string(source)


def reference_render(
    template: jinja2.Template, messages: Messages, prompt: bool, special: dict[str, str]
) -> str | Exception:
    """The text, or the exception that rendering it raises."""
    try:
        dicts = [{"role": role, "content": content} for role, content in messages]
        return template.render(messages=dicts, tools=None, documents=None, add_generation_prompt=prompt, **special)
    except (TemplateRefusalError, jinja2.TemplateError) as error:
        return error


def conversations(rng: random.Random, texts: list[str]) -> Iterator[Messages]:
    """Conversations of generated texts, some with roles out of order."""
    fixed = [" padded\n", "", "<think>\nwhy\n</think>\n\nso", 'it\'s "quoted" <b>']
    for _ in range(80):
        first = rng.choice(["system", "user"])
        roles = [first] + [("user", "assistant")[(i + (first == "user")) % 2] for i in range(rng.randint(0, 4))]
        if rng.random() < 0.1:
            roles.append(roles[-1])
        yield [(role, rng.choice([rng.choice(texts)[:400], *fixed])) for role in roles]


def is_ordinary(messages: Messages, special_texts: list[str]) -> bool:
    """Whether no message contains the text of a control token."""
    return not any(token in text for message in messages for text in message for token in special_texts)


class TemplateComparison:
    """Renders and encodes the same conversations with one template after the other."""

    def __init__(self, driver: str, model_dir: str, reference: Any, talks: list[Messages]) -> None:
        self.driver = driver
        self.model_dir = model_dir
        self.reference = reference
        self.talks = talks
        self.special_texts = [t.content for t in reference.get_added_tokens_decoder().values() if t.special]

    def compare(self, name: str, source: str, special: dict[str, str]) -> None:
        """Compares `source`, given the special token strings `special`."""
        with tempfile.TemporaryDirectory() as directory:
            (pathlib.Path(directory) / "chat_template.jinja").write_text(source)
            (pathlib.Path(directory) / "special_tokens_map.json").write_text(json.dumps(special))
            answers = drive(self.driver, self.model_dir, self.requests(directory))
        answers.result(lambda: None)
        template = reference_template(source)
        rendered = 0
        for messages in self.talks:
            for prompt in (False, True):
                expected = reference_render(template, messages, prompt, special)
                rendered += self.compare_rendering(f"{name}: {messages!r}", messages, expected, answers)
        expect(rendered > 10, f"{name}: number of renderings", rendered, "more than 10")
        print(f"template {name}: {rendered} renderings of {2 * len(self.talks)}, the others refused by both: equal")

    def requests(self, template_dir: str) -> list[bytes]:
        """Each conversation without and with generation prompt."""
        requests = [b"T" + text_bytes(template_dir)]
        for messages in self.talks:
            fields = b"".join(text_bytes(role) + text_bytes(content) for role, content in messages)
            requests += [b"R" + number(prompt) + number(len(messages)) + fields for prompt in (0, 1)]
        return requests

    def compare_rendering(self, what: str, messages: Messages, expected: str | Exception, answers: Answers) -> bool:
        """Whether there was a rendering; ids are compared where no message imitates a control token."""
        actual = answers.result(answers.text)
        if isinstance(expected, Exception):
            same = isinstance(actual, tuple)
            if isinstance(expected, TemplateRefusalError):
                same = same and str(expected) in actual[1]
            expect(same, f"refusal of {what}", actual, expected)
            return False
        expect(actual == expected, f"rendering of {what}", actual, expected)
        ids = answers.result(answers.ids)
        expected_ids = self.reference.encode(expected, add_special_tokens=False).ids
        if is_ordinary(messages, self.special_texts):
            expect(ids == expected_ids, f"ids of {what}", ids, expected_ids)
        return True


def compare_templates(comparison: TemplateComparison) -> None:
    """The model's own template, and those that show what templates of other models do."""
    model = pathlib.Path(comparison.model_dir)
    special = json.loads((model / "special_tokens_map.json").read_text())
    comparison.compare("of the model", (model / "chat_template.jinja").read_text(), special)
    for path in sorted(TEMPLATES.glob("*.jinja")):
        comparison.compare(path.stem, path.read_text(), {"bos_token": "<s>", "eos_token": "</s>"})


def main() -> None:
    """Runs the command line."""
    driver, model_dir = sys.argv[1:]
    print(f"tokenizers {tokenizers.__version__}, jinja2 {jinja2.__version__}, seed {SEED}")
    rng = random.Random(SEED)
    reference = tokenizers.Tokenizer.from_file(f"{model_dir}/tokenizer.json")
    special = [token.content for token in reference.get_added_tokens_decoder().values()]
    texts = list(generated_texts(rng, special))
    size = sum(len(text.encode("utf-8")) for text in texts)
    expect(size >= MINIMUM_BYTES, "size of the generated text", size, MINIMUM_BYTES)
    encoded = compare_encoding(driver, model_dir, reference, texts)
    compare_decoding(driver, model_dir, reference, encoded + random_ids(rng, reference.get_vocab_size()))
    compare_templates(TemplateComparison(driver, model_dir, reference, list(conversations(rng, texts))))
    print("no difference")


if __name__ == "__main__":
    main()
