"""Compares the text library with the reference Python implementation: no difference is allowed.

    compare_tokenizer.py TOKENIZER_DRIVER MODEL_DIR

Encodes and decodes more than 1 MB of generated text (prose and code of Python's own library, every assigned character,
many scripts, emoji, combining marks, control characters, long runs) with the `tokenizers` package and with our driver,
and renders chat templates with jinja2, set up as transformers does, and with our driver.
Needs the packages tokenizers and jinja2.
"""

import datetime
import inspect
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata

import jinja2
import jinja2.ext
import jinja2.sandbox
import tokenizers

SEED = 20240607
NOW = 1700000000  # As in tokenizer_driver.cc.
MINIMUM_BYTES = 1_000_000
LIBRARY_MODULES = "abc argparse ast asyncio calendar codecs colorsys csv datetime decimal difflib email.header heapq json.encoder locale random statistics string tabnanny textwrap this turtle typing unittest.mock".split()


# --- Texts -----------------------------------------------------------------------------------------------------------


def library_texts():
    """Source code and its prose, from Python's standard library."""
    for name in LIBRARY_MODULES:
        module = __import__(name, fromlist=["_"]) if name != "this" else None
        path = pathlib.Path(inspect.getsourcefile(module)) if module else pathlib.Path(inspect.getsourcefile(json)).parent.parent / "this.py"
        source = path.read_text(encoding="utf-8")
        yield from (source[i : i + 8000] for i in range(0, len(source), 8000))
        if module and module.__doc__:
            yield module.__doc__


def character_texts():
    """Every assigned or private character (surrogates cannot be text), alone between letters and in a row."""
    assigned = [chr(c) for c in range(0x110000) if unicodedata.category(chr(c)) not in ("Cn", "Cs", "Co")]
    for i in range(0, len(assigned), 256):
        row = assigned[i : i + 256]
        # The large uniform blocks once, the rest also between letters, digits and spaces.
        if ord(row[0]) < 0x3400 or 0xA000 <= ord(row[0]) < 0xAC00 or 0xF900 <= ord(row[0]) < 0x17000 or ord(row[0]) >= 0x1B000 and ord(row[-1]) < 0x20000:
            yield "".join(f"a{c}b {c} 1{c}" for c in row)
        yield "".join(row)


def scripts(rng):
    ranges = [(0x0370, 0x3FF), (0x400, 0x52F), (0x590, 0x5FF), (0x600, 0x6FF), (0x900, 0x97F), (0xB80, 0xBFF), (0xE00, 0xE7F), (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF)]
    for first, last in ranges:
        letters = [chr(c) for c in range(first, last + 1) if unicodedata.category(chr(c)) not in ("Cn", "Cs")]
        for _ in range(24):
            words = ("".join(rng.choices(letters, k=rng.randint(1, 9))) for _ in range(60))
            yield "".join(word + rng.choice([" ", " ", ", ", ". ", "\n", "　", "\t", "-"]) for word in words)


def combining(rng):
    marks = [chr(c) for c in range(0x300, 0x370)]
    for _ in range(100):
        text = "".join(rng.choice("aeiounsc AEIOUЖд한か") + "".join(rng.choices(marks, k=rng.randint(0, 4))) for _ in range(120))
        yield text
        yield unicodedata.normalize(rng.choice(["NFC", "NFD", "NFKC", "NFKD"]), text)


def emoji(rng):
    parts = [chr(c) for c in range(0x1F300, 0x1F650)] + ["\u200d", "\ufe0f", "\u20e3", "👩‍👩‍👧‍👦", "🏴󠁧󠁢󠁥󠁮󠁧󠁿", "🇫🇷", "👍🏽", " ", "ok", "1"]
    for _ in range(60):
        yield "".join(rng.choices(parts, k=80))


def odd(rng):
    """Control characters, what stray bytes decode to, mixed white space, contractions, numbers in many forms."""
    controls = [chr(c) for c in range(0x00, 0x20)] + [chr(c) for c in range(0x7F, 0xA1)] + list("\u2028\u2029\ufeff\ufffd\u200b\u2060\u00ad\ufdd0\uffff")
    spaces = list(" \t\n\r\v\f") + ["\u00a0", "\u1680", "\u2003", "\u202f", "\u3000", "\u0085"]
    for _ in range(100):
        yield "".join(rng.choice(controls + ["x", " ", "7"]) for _ in range(120))
        yield bytes(rng.randrange(256) for _ in range(200)).decode("utf-8", "replace")
        yield bytes(rng.randrange(256) for _ in range(200)).decode("latin-1")
        yield "".join(rng.choice(spaces) * rng.choice([1, 1, 2, 3, 17]) + rng.choice(["", "", "a", "é", "9", ".", "'ll", "'S", "don't"]) for _ in range(60))
        yield " ".join(rng.choice(["{}", "-{}", "{}.5e-7", "0x{:x}", "{:,}", "①²½{}", "٣{}"]).format(rng.randrange(10 ** rng.randint(1, 30))) for _ in range(30))


def runs():
    for unit in ["7", "0123456789", " ", "\n", "\r\n", "\t ", "a", "ab", "é", "日", "🙂", "\u0301", "'s", "<|", "!?", "\u00a0", "_", "=-"]:
        for count in (1, 2, 3, 4, 15, 16, 17, 127, 1000, 4097):
            yield unit * count
            yield f"x{unit * count}y {unit * count} "


def generated_texts(rng, special):
    yield from ["", " ", "\n", "a", "\x00"]
    for producer in (library_texts(), character_texts(), scripts(rng), combining(rng), emoji(rng), odd(rng), runs()):
        yield from producer
    for _ in range(300):
        yield "".join(rng.choice(special + [" ", "\n", "user", "<|", "|>", "hi", "<", "é"]) for _ in range(12))


# --- The driver ------------------------------------------------------------------------------------------------------


def number(value):
    return struct.pack("<I", value)


def text_bytes(text):
    data = text.encode("utf-8")
    return number(len(data)) + data


class Answers:
    def __init__(self, data):
        self.data, self.position = data, 0

    def take(self, size):
        self.position += size
        if self.position > len(self.data):
            raise SystemExit("FAILED: the driver's answers end too early")
        return self.data[self.position - size : self.position]

    def number(self):
        return struct.unpack("<I", self.take(4))[0]

    def text(self):
        return self.take(self.number()).decode("utf-8")

    def ids(self):
        count = self.number()
        return list(struct.unpack(f"<{count}I", self.take(4 * count)))

    def result(self, read):
        """The value, or a (code, message) pair for a failure."""
        code = self.number()
        return read() if code == 0 else (code, self.text())


def drive(driver, model_dir, requests):
    done = subprocess.run([driver, model_dir], input=b"".join(requests), stdout=subprocess.PIPE, check=True, env={"TZ": "UTC"})
    return Answers(done.stdout)


def expect(same, what, mine, reference):
    if not same:
        raise SystemExit(f"FAILED: {what}\n  ours:      {mine!r}\n  reference: {reference!r}")


# --- Encoding and decoding -------------------------------------------------------------------------------------------


def compare_encoding(driver, model_dir, reference, texts):
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
    print(f"encoded {len(texts)} texts, {sum(len(t.encode()) for t in texts)} bytes, to {sum(map(len, encoded))} ids: equal")
    return encoded


def compare_decoding(driver, model_dir, reference, id_lists):
    requests = [b"D" + number(skip) + number(len(ids)) + struct.pack(f"<{len(ids)}I", *ids) for ids in id_lists for skip in (0, 1)]
    answers = drive(driver, model_dir, requests)
    for index, ids in enumerate(id_lists):
        for skip in (False, True):
            expected = reference.decode(ids, skip_special_tokens=skip)
            actual = answers.result(answers.text)
            expect(actual == expected, f"decoding of list {index}: {ids[:50]}", actual, expected)
    print(f"decoded {len(id_lists)} lists of ids: equal")


def random_ids(rng, vocab_size):
    return [[rng.randrange(vocab_size) for _ in range(rng.randint(0, 80))] for _ in range(2000)]


# --- Chat templates --------------------------------------------------------------------------------------------------

# What templates of well-known models do, in small pieces.
TEMPLATES = {
    "trim and alternate": "{{ bos_token }}{% for message in messages %}\n    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\n        {{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}\n    {% endif %}\n    {% if message['role'] == 'user' %}\n        {{ '[INST] ' + message['content'] | trim + ' [/INST]' }}\n    {% elif message['role'] == 'assistant' %}\n        {{ ' ' + message['content'] | trim + eos_token }}\n    {% endif %}\n{% endfor %}\n",
    "system message and namespace": "{%- if messages[0]['role'] == 'system' %}\n    {%- set system_message = messages[0]['content']|trim %}\n    {%- set messages = messages[1:] %}\n    {{- messages | length }}{% if messages %}{{ messages[0].role }}{{ messages[-1]['content'] }}{% endif %}\n{%- else %}\n    {%- set system_message = '' %}\n{%- endif %}\n{%- set ns = namespace(count=0) -%}\n{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}\n{{- 'Today Date: ' + strftime_now('%d %b %Y') + '\\n\\n' }}\n{{- system_message }}\n{%- for message in messages %}\n    {%- set ns.count = ns.count + 1 %}\n    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n{{ ns.count }}\n{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n",
    "thinking": "{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}\n{%- for message in messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi_step_tool and message.role == \"user\" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}\n        {%- set ns.multi_step_tool = false %}\n        {%- set ns.last_query_index = index %}\n    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- set content = message.content %}\n    {%- set reasoning_content = '' %}\n    {%- if '</think>' in content %}\n        {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n    {%- endif %}\n    {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}\n        {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content }}\n    {%- else %}\n        {{- '<|im_start|>' + message.role + '\\n' + content }}\n    {%- endif %}\n    {{- '<|im_end|>\\n' }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' }}\n    {%- if enable_thinking is defined and enable_thinking is false %}\n        {{- '<think>\\n\\n</think>\\n\\n' }}\n    {%- endif %}\n{%- endif %}\n",
    "macros, tests and filters": "{% macro turn(m, i=0) %}\n  [{{ i }}] {{ m.role | upper }}: {{ m.content | replace('\\n', ' ') | default('-', true) }}\n{% endmacro %}\n{% for m in messages if m.role != 'system' %}\n{{ turn(m, loop.index) }}{% if not loop.last %}---\n{% endif %}\n{% else %}\nnothing\n{% endfor %}\n{{ messages | map(attribute='role') | join(',') }} {{ messages | selectattr('role', 'equalto', 'user') | list | length }}\n{% if tools is not none and tools %}tools{% endif %}{{ none }} {{ true }} {{ [1, 2.5, 'x', \"it's\"] }}\n",
    "json": "{{ messages | tojson }}\n{{ messages | tojson(indent=4) }}\n{% for m in messages %}{{ m | tojson }}{{ m.content | tojson }}{% for k, v in m.items() %}{{ k }}={{ v }};{% endfor %}{% endfor %}{{ {'b': 1, 'a': [true, none]} | tojson }}",
    "loop controls and generation": "{% for m in messages %}\n{% if m.role == 'system' %}{% continue %}{% endif %}\n{% generation %}{{ m.content.strip() ~ '|' ~ m.role.title() }}{% endgeneration %}\n{% if loop.index > 3 %}{% break %}{% endif %}\n{% endfor %}",
}


class Generation(jinja2.ext.Extension):
    """transformers' {% generation %}: renders its content."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_content"), [], [], body).set_lineno(line)

    def _content(self, caller):
        return caller()


class TemplateRefusal(Exception):
    pass


def raise_exception(message):
    raise TemplateRefusal(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def reference_template(source):
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.datetime.fromtimestamp(NOW, datetime.timezone.utc).strftime(form)
    return environment.from_string(source)


def reference_render(template, messages, prompt, special):
    try:
        dicts = [{"role": role, "content": content} for role, content in messages]
        return template.render(messages=dicts, tools=None, documents=None, add_generation_prompt=prompt, **special)
    except (TemplateRefusal, jinja2.TemplateError) as error:
        return error


def conversations(rng, texts):
    for _ in range(80):
        first = rng.choice(["system", "user"])
        roles = [first] + [("user", "assistant")[(i + (first == "user")) % 2] for i in range(rng.randint(0, 4))]
        if rng.random() < 0.1:
            roles.append(roles[-1])
        contents = [rng.choice([rng.choice(texts)[:400], " padded\n", "", "<think>\nwhy\n</think>\n\nso", "it's \"quoted\" <b>"]) for _ in roles]
        yield list(zip(roles, contents))


def is_ordinary(messages, special_texts):
    return not any(token in text for message in messages for text in message for token in special_texts)


def compare_template(driver, model_dir, name, template_dir, template, special, reference, talks):
    special_texts = [t.content for t in reference.get_added_tokens_decoder().values() if t.special]
    requests = [b"T" + text_bytes(template_dir)]
    for messages in talks:
        fields = b"".join(text_bytes(role) + text_bytes(content) for role, content in messages)
        requests += [b"R" + number(prompt) + number(len(messages)) + fields for prompt in (0, 1)]
    answers = drive(driver, model_dir, requests)
    answers.result(lambda: None)
    rendered = 0
    for messages in talks:
        for prompt in (False, True):
            expected = reference_render(template, messages, prompt, special)
            actual = answers.result(answers.text)
            if isinstance(actual, tuple):
                raised = isinstance(expected, TemplateRefusal) and str(expected) in actual[1]
                expect(raised or isinstance(expected, jinja2.TemplateError), f"{name}: refusal of {messages!r}", actual, expected)
                continue
            expect(actual == expected, f"{name}: rendering of {messages!r}", actual, expected)
            ids = answers.result(answers.ids)
            expected_ids = reference.encode(expected, add_special_tokens=False).ids
            if is_ordinary(messages, special_texts):
                expect(ids == expected_ids, f"{name}: ids of {messages!r}", ids, expected_ids)
            rendered += 1
    expect(rendered > 10, f"{name}: number of renderings", rendered, "more than 10")
    print(f"template '{name}': {rendered} renderings of {2 * len(talks)}, others refused by both: equal")


def compare_templates(driver, model_dir, reference, rng, texts):
    talks = list(conversations(rng, texts))
    model = pathlib.Path(model_dir)
    special = json.loads((model / "special_tokens_map.json").read_text())
    source = (model / "chat_template.jinja").read_text()
    compare_template(driver, model_dir, "of the model", model_dir, reference_template(source), special, reference, talks)
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    for name, source in TEMPLATES.items():
        with tempfile.TemporaryDirectory() as directory:
            (pathlib.Path(directory) / "chat_template.jinja").write_text(source)
            (pathlib.Path(directory) / "special_tokens_map.json").write_text(json.dumps(special))
            compare_template(driver, model_dir, name, directory, reference_template(source), special, reference, talks)


def main():
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
    compare_templates(driver, model_dir, reference, rng, texts)
    print("no difference")


if __name__ == "__main__":
    main()
