//! Mutations of chat templates: their tags and expressions are repeated, removed, exchanged and replaced.

use super::bytes::mutate_bytes;
use crate::Choices;

/// Changes a template; once in ten times its bytes, so that it may be no text.
pub fn mutate_template(template: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
    let (Ok(text), false) = (std::str::from_utf8(template), choices.below(10) == 9) else {
        let mut bytes = template.to_vec();
        mutate_bytes(&mut bytes, choices);
        return bytes;
    };
    let mut pieces = split(text);
    for _ in 0..=choices.below(6) {
        mutate_pieces(&mut pieces, choices);
    }
    pieces.concat().into_bytes()
}

fn mutate_pieces(pieces: &mut Vec<String>, choices: &mut Choices<'_>) {
    let place = choices.below(pieces.len());
    match choices.below(8) {
        0 if place < pieces.len() => drop(pieces.remove(place)),
        1 if place < pieces.len() => {
            let other = choices.below(pieces.len());
            pieces.swap(place, other);
        }
        2 => {
            if let Some(piece) = pieces.get(place).cloned() {
                pieces.insert(choices.below(pieces.len()), piece);
            }
        }
        3 => {
            if let Some(piece) = pieces.get_mut(place) {
                *piece = choices.text(piece);
            }
        }
        4 => {
            let (tag, value) = (statement(choices), expression(choices, 0));
            pieces.insert(place, tag.replace("VALUE", &value));
        }
        _ => pieces.insert(place, format!("{{{{ {} }}}}", expression(choices, 0))),
    }
}

/// Text, tags and expressions of a template, in their order.
fn split(template: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some(start) = rest.find("{%").into_iter().chain(rest.find("{{")).min() {
        let (before, tag) = rest.split_at(start);
        let close = if tag.starts_with("{%") { "%}" } else { "}}" };
        let end = tag.find(close).map_or(tag.len(), |end| end + close.len());
        let (tag, after) = tag.split_at(end);
        pieces.extend([before, tag].map(str::to_owned));
        rest = after;
    }
    pieces.push(rest.to_owned());
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

/// A statement with a place for an expression.
fn statement(choices: &mut Choices<'_>) -> &'static str {
    const STATEMENTS: [&str; 14] = [
        "{% for x in VALUE %}{{ x }}{% endfor %}",
        "{% for x in VALUE recursive %}{{ loop.index }}{% endfor %}",
        "{% for x in VALUE %}{% break %}{% endfor %}",
        "{% if VALUE %}a{% else %}b{% endif %}",
        "{% set x = VALUE %}",
        "{% set x %}{{ VALUE }}{% endset %}",
        "{% set ns = namespace(x=VALUE) %}{% set ns.x = ns.x + ns.x %}{{ ns.x }}",
        "{% with x = VALUE %}{{ x }}{% endwith %}",
        "{% macro m(x) %}{{ x }}{% endmacro %}{{ m(VALUE) }}",
        "{% filter upper %}{{ VALUE }}{% endfilter %}",
        "{% generation %}{{ VALUE }}{% endgeneration %}",
        "{% raw %}VALUE{% endraw %}",
        "{# VALUE #}",
        "{% for x in VALUE %}",
    ];
    choices.pick(&STATEMENTS).copied().unwrap_or_default()
}

/// An expression with a few levels.
fn expression(choices: &mut Choices<'_>, depth: usize) -> String {
    const VALUES: [&str; 17] = [
        "messages",
        "messages[0]",
        "messages[-1]['content']",
        "message",
        "message.role",
        "loop",
        "x",
        "ns",
        "bos_token",
        "tools",
        "add_generation_prompt",
        "none",
        "true",
        "'text'",
        "[]",
        "{}",
        "cycler('a', 'b')",
    ];
    const FORMS: [&str; 30] = [
        "A + B",
        "A ~ B",
        "A * B",
        "A - B",
        "A // B",
        "A % B",
        "A ** B",
        "A == B",
        "A < B",
        "A in B",
        "A is defined",
        "A is mapping",
        "not A",
        "A if B else A",
        "A[B]",
        "A[B:]",
        "[A, B]",
        "{'a': A, 'b': B}",
        "A | tojson",
        "A | length",
        "A | join(B)",
        "A | replace('a', B)",
        "A | indent(B)",
        "A | selectattr('role') | list",
        "A | string | trim",
        "A.split(B)",
        "A.items()",
        "A.format(B)",
        "range(A)",
        "strftime_now(A)",
    ];
    if depth < 4 && !choices.once_in(3) {
        let form = choices.pick(&FORMS).copied().unwrap_or("A");
        let [left, right] = [(); 2].map(|()| format!("({})", expression(choices, depth + 1)));
        let operand = |letter| if letter == 'A' { Some(left.as_str()) } else { Some(right.as_str()) };
        // only the letters of the form, not those in the operands
        return form
            .split_inclusive(['A', 'B'])
            .map(|part| match part.chars().last() {
                Some(letter @ ('A' | 'B')) => {
                    format!("{}{}", &part[..part.len() - 1], operand(letter).unwrap_or_default())
                }
                _ => part.to_owned(),
            })
            .collect();
    }
    match choices.below(4) {
        0 => choices.integer(1).to_string(),
        1 => format!("{:?}", choices.text("text").replace(|letter: char| letter.is_control(), "")),
        _ => choices.pick(&VALUES).copied().unwrap_or("x").to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEMPLATE: &str = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}end";

    #[test]
    fn a_template_is_split_at_its_tags() {
        let pieces = split(TEMPLATE);
        assert_eq!(pieces, ["{% for m in messages %}", "{{ m['content'] }}", "\n", "{% endfor %}", "end"]);
        assert_eq!(split("a {{ b").concat(), "a {{ b");
    }

    #[test]
    fn most_seeds_change_a_template() {
        let mutated = |seed| mutate_template(TEMPLATE.as_bytes(), &mut Choices::of_seed(seed));
        assert!((0..500).filter(|seed| mutated(*seed) != TEMPLATE.as_bytes()).count() > 450);
    }

    #[test]
    fn operands_replace_the_letters_of_a_form_alone() {
        for seed in 0..200 {
            let expression = expression(&mut Choices::of_seed(seed), 0);
            let opened = expression.matches('(').count();
            assert!(opened == expression.matches(')').count() || expression.contains('"'), "{expression}");
        }
    }
}
