//! The instructions of a template, with those that can take much memory or time replaced by our own functions.
//!
//! The engine computes operators itself and has no hook for them. So its instructions are rewritten before they run: an operator
//! becomes a filter of [`operations`], which checks and charges first, and each result passes [`operations::OWN`].

use std::collections::BTreeMap;

use minijinja::machinery::{
    CodeGenerator, Instruction, Instructions, Vm, WhitespaceConfig, make_string_output, parse,
};
use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value};

use super::{constants, guard, operations, values};

/// Name of a template in messages.
const NAME: &str = "chat_template";

/// A template that can be rendered.
pub(super) struct Program<'source> {
    main: Instructions<'source>,
    blocks: BTreeMap<&'source str, Instructions<'source>>,
}

impl<'source> Program<'source> {
    /// Compiles a template.
    pub(super) fn compile(source: &'source str) -> Result<Self, Error> {
        // transformers renders with these two options; they control line breaks around blocks
        let whitespace =
            WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
        guard::check(source, whitespace)?;
        let template = parse(source, NAME, SyntaxConfig, whitespace)?;
        constants::check(&template)?;
        let mut generator = CodeGenerator::new(NAME, source);
        generator.compile_stmt(&template);
        let (main, blocks) = generator.finish();
        let blocks = blocks.iter().map(|(name, block)| Ok((*name, rewrite(block, source)?)));
        Ok(Program { main: rewrite(&main, source)?, blocks: blocks.collect::<Result<_, Error>>()? })
    }

    /// Renders the template.
    pub(super) fn render(&self, environment: &Environment<'_>, context: Value) -> Result<String, Error> {
        let mut text = String::new();
        let mut output = make_string_output(&mut text);
        let vm = Vm::new(environment);
        vm.eval(&self.main, context, &self.blocks, &mut output, AutoEscape::None)?;
        drop(output);
        Ok(text)
    }
}

/// A filter for the last values of the stack; `!0` is a name that is looked up each time.
fn apply<'source>(filter: &'static str, count: u16) -> Instruction<'source> {
    Instruction::ApplyFilter(filter, Some(count), !0)
}

/// Bytes of a macro that is declared: the engine keeps it to the end, and copies the list of all for a macro in a macro.
const MACRO: u64 = 4096;

/// Bytes of a variable that a macro refers to, which the engine keeps to the end.
const ENCLOSED: u64 = 128;

/// An instruction that takes such a number of bytes.
fn created<'source>(bytes: u64, instruction: &Instruction<'source>) -> Vec<Instruction<'source>> {
    let bytes = Instruction::LoadConst(Value::from(bytes));
    vec![bytes, apply(operations::CREATE, 1), Instruction::DiscardTop, instruction.clone()]
}

/// A filter for the arguments of a call and its name.
fn call<'source>(filter: &'static str, name: &'source str, count: Option<u16>) -> Vec<Instruction<'source>> {
    let name = Instruction::LoadConst(Value::from(name));
    match count {
        // of more than 65 534 arguments the engine would not see the name
        Some(count) => vec![name, apply(filter, count.saturating_add(1))],
        // the number of arguments is above them on the stack: increase it, and move the name below
        None => vec![
            Instruction::LoadConst(Value::from(1)),
            Instruction::Add,
            name,
            Instruction::Swap,
            Instruction::ApplyFilter(filter, None, !0),
        ],
    }
}

/// What takes the place of an instruction.
fn replacement<'source>(instruction: &Instruction<'source>) -> Result<Vec<Instruction<'source>>, Error> {
    use Instruction as I;
    let own = || apply(operations::OWN, 1);
    let read = || apply(operations::READ, 1);
    Ok(match instruction {
        I::EmitRaw(text) => {
            vec![I::LoadConst(Value::from_safe_string((*text).to_owned())), I::Emit]
        }
        I::LoadConst(value) if values::is_container(value) && !value.is_kwargs() => {
            vec![I::LoadConst(values::own(value)?)]
        }
        I::Slice => vec![apply(operations::SLICE, 4)],
        I::GetItem => vec![apply(operations::ITEM, 2)],
        I::PushLoop(_) => vec![apply(operations::LOOP, 1), instruction.clone()],
        I::UnpackLists(count) => {
            let lists = u16::try_from(*count).map_err(|_| Error::from(ErrorKind::InvalidOperation))?;
            vec![apply(operations::ARGUMENTS, lists), I::UnpackLists(1)]
        }
        I::Enclose(_) => created(ENCLOSED, instruction),
        I::BuildMacro(..) => created(MACRO, instruction),
        I::BuildList(_) | I::BuildMap(_) | I::CallFunction(..) | I::CallObject(_) => {
            vec![instruction.clone(), own()]
        }
        I::Add => vec![apply(operations::ADD, 2)],
        I::Mul => vec![apply(operations::MULTIPLY, 2)],
        I::StringConcat => vec![apply(operations::CONCATENATE, 2)],
        I::Eq | I::Ne | I::Gt | I::Gte | I::Lt | I::Lte => vec![read(), instruction.clone()],
        I::In | I::CompareAndPreserve(_) => {
            vec![read(), I::Swap, read(), I::Swap, instruction.clone()]
        }
        I::ApplyFilter(name, count, _) => call(operations::FILTER, name, *count),
        I::PerformTest(name, count, _) => call(operations::TEST, name, *count),
        I::CallMethod(name, count) => call(operations::METHOD, name, *count),
        I::SetAttr(name) => {
            vec![I::LoadConst(Value::from(*name)), apply(operations::SET_ATTRIBUTE, 3), I::DiscardTop]
        }
        _ => vec![instruction.clone()],
    })
}

/// Replaces instructions, with their lines, and moves the targets of jumps.
fn rewrite<'source>(
    instructions: &Instructions<'source>,
    source: &'source str,
) -> Result<Instructions<'source>, Error> {
    let mut rewritten = Instructions::new(NAME, source);
    let mut places = Vec::new();
    let mut index = 0;
    while let Some(instruction) = instructions.get(index) {
        for (offset, new) in replacement(instruction)?.into_iter().enumerate() {
            let place = match (instructions.get_span(index), instructions.get_line(index)) {
                (Some(span), _) => rewritten.add_with_span(new, span),
                (None, Some(line)) => rewritten.add_with_line(new, u16::try_from(line).unwrap_or(u16::MAX)),
                (None, None) => rewritten.add(new),
            };
            if offset == 0 {
                places.push(place);
            }
        }
        index += 1;
    }
    let mut end = 0;
    while rewritten.get(end).is_some() {
        end += 1;
    }
    let mut place = 0;
    while let Some(instruction) = rewritten.get_mut(place) {
        match instruction {
            Instruction::Jump(target)
            | Instruction::JumpIfFalse(target)
            | Instruction::JumpIfFalseOrPop(target)
            | Instruction::JumpIfTrueOrPop(target)
            | Instruction::Iterate(target)
            | Instruction::BuildMacro(_, target, _) => {
                *target = places.get(*target as usize).copied().unwrap_or(end);
            }
            _ => {}
        }
        place += 1;
    }
    Ok(rewritten)
}
