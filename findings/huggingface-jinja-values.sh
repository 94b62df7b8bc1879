#!/usr/bin/env bash
# @huggingface/jinja 0.5.11 (npm), which renders chat templates in transformers.js, has JavaScript's values in places where
# Jinja2 3.1.6 (PyPI), which renders the same templates in transformers, has Python's.
# A good guess: the same template and messages give the same prompt. Seen: booleans in lower case, nothing for none, a
# text that equals a number, and titles that keep their capitals. No error: the model is given another prompt.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check Jinja2==3.1.6 MarkupSafe==3.0.4
npm install --silent --no-fund --no-audit --prefix "$work" @huggingface/jinja@0.5.11
cat > "$work/templates.json" <<'JSON'
["Thinking: {{ enable_thinking }}", "Tools: {{ tools }}", "{% if version == 2 %}new{% else %}old{% endif %}", "{{ role | title }}"]
JSON
cat > "$work/values.json" <<'JSON'
{"enable_thinking": true, "tools": null, "version": "2", "role": "tool RESULT"}
JSON
cat > "$work/render.py" <<'PYTHON'
import jinja2, json
values = json.load(open("values.json"))
print("jinja2", [jinja2.Template(text).render(values) for text in json.load(open("templates.json"))])
PYTHON
cat > "$work/render.js" <<'JAVASCRIPT'
const { readFileSync } = require("fs");
const { Template } = require("@huggingface/jinja");
const read = (name) => JSON.parse(readFileSync(name));
const rendered = read("templates.json").map((text) => new Template(text).render(read("values.json")));
console.log("@huggingface/jinja", "['" + rendered.join("', '") + "']");
JAVASCRIPT
found=$(cd "$work" && venv/bin/python render.py && node render.js)
expected="jinja2 ['Thinking: True', 'Tools: None', 'old', 'Tool Result']
@huggingface/jinja ['Thinking: true', 'Tools: ', 'new', 'Tool RESULT']"
printf '%s\n' "$found"
diff <(printf '%s\n' "$expected") <(printf '%s\n' "$found") || { echo "the behaviour changed" >&2; exit 1; }
