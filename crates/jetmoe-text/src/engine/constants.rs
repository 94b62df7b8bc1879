//! Constant expressions. The engine's code generator computes them, over and over for each operator around them, and nothing
//! limits their results: `'a' * 100000000` is a text of that length before anything is rendered. So their cost is estimated first.

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, Stmt};
use minijinja::{Error, ErrorKind};

use super::values::ITEM;

/// Most bytes that computing the constant expressions of a template may take, all together.
const MAX_COST: u64 = 64 << 20;

/// What is known of a constant.
#[derive(Clone, Copy)]
struct Constant {
    /// Most bytes of it.
    bytes: u64,
    /// As a factor of a multiplication.
    factor: f64,
}

/// An expression: what computing its constants costs once, and its value if it is one.
#[derive(Clone, Copy, Default)]
struct Estimate {
    cost: u64,
    constant: Option<Constant>,
}

/// Refuses a template whose constant expressions take more.
pub(super) fn check(template: &Stmt<'_>) -> Result<(), Error> {
    let mut total = Total(0);
    total.statement(template);
    if total.0 > MAX_COST {
        let message =
            format!("constant expressions of the template take {} bytes, at most {MAX_COST}", total.0);
        return Err(Error::new(ErrorKind::SyntaxError, message));
    }
    Ok(())
}

/// The cost of all expressions, computed once for every expression around them.
struct Total(u64);

impl Total {
    fn statements(&mut self, statements: &[Stmt<'_>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &Stmt<'_>) {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emit) => self.expressions([&emit.expr]),
            Stmt::EmitRaw(_) | Stmt::Continue(_) | Stmt::Break(_) => {}
            Stmt::ForLoop(each) => {
                self.expressions([&each.iter].into_iter().chain(&each.filter_expr));
                self.statements(&each.body);
                self.statements(&each.else_body);
            }
            Stmt::IfCond(branch) => {
                self.expressions([&branch.expr]);
                self.statements(&branch.true_body);
                self.statements(&branch.false_body);
            }
            Stmt::WithBlock(with) => {
                self.expressions(with.assignments.iter().map(|(_, value)| value));
                self.statements(&with.body);
            }
            Stmt::Set(set) => self.expressions([&set.expr]),
            Stmt::SetBlock(set) => {
                self.expressions(&set.filter);
                self.statements(&set.body);
            }
            Stmt::AutoEscape(escape) => {
                self.expressions([&escape.enabled]);
                self.statements(&escape.body);
            }
            Stmt::FilterBlock(block) => {
                self.expressions([&block.filter]);
                self.statements(&block.body);
            }
            Stmt::Block(block) => self.statements(&block.body),
            Stmt::Import(import) => self.expressions([&import.expr]),
            Stmt::FromImport(import) => self.expressions([&import.expr]),
            Stmt::Extends(extends) => self.expressions([&extends.name]),
            Stmt::Include(include) => self.expressions([&include.name]),
            Stmt::Macro(declared) => {
                self.expressions(&declared.defaults);
                self.statements(&declared.body);
            }
            Stmt::CallBlock(call) => {
                self.expressions([&call.call.expr]);
                self.arguments(&call.call.args);
                self.expressions(&call.macro_decl.defaults);
                self.statements(&call.macro_decl.body);
            }
            Stmt::Do(statement) => {
                self.expressions([&statement.call.expr]);
                self.arguments(&statement.call.args);
            }
        }
    }

    fn expressions<'a, 'b: 'a>(&mut self, expressions: impl IntoIterator<Item = &'a Expr<'b>>) {
        for expression in expressions {
            self.expression(expression);
        }
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) {
        for argument in arguments {
            match argument {
                CallArg::Pos(value)
                | CallArg::Kwarg(_, value)
                | CallArg::PosSplat(value)
                | CallArg::KwargSplat(value) => self.expressions([value]),
            }
        }
    }

    /// Adds the cost of an expression for every expression that contains it.
    fn expression(&mut self, expression: &Expr<'_>) -> Estimate {
        let estimate = self.estimate(expression);
        self.0 = self.0.saturating_add(estimate.cost);
        estimate
    }

    fn estimate(&mut self, expression: &Expr<'_>) -> Estimate {
        match expression {
            Expr::Const(constant) => {
                let text = constant.value.as_str().map_or(0, str::len) as u64;
                let factor =
                    constant.value.to_string().parse::<f64>().map_or(1.0, |number| number.abs().max(1.0));
                let factor = if constant.value.is_number() { factor } else { 1.0 };
                Estimate { cost: 1, constant: Some(Constant { bytes: ITEM + text, factor }) }
            }
            Expr::BinOp(operation) => {
                let left = self.expression(&operation.left);
                let right = self.expression(&operation.right);
                let cost = left.cost.saturating_add(right.cost).saturating_add(1);
                match (left.constant, right.constant) {
                    (Some(left), Some(right)) => computed(operation.op, left, right, cost),
                    _ => Estimate { cost, constant: None },
                }
            }
            Expr::UnaryOp(operation) => {
                let inner = self.expression(&operation.expr);
                Estimate { cost: inner.cost.saturating_add(1), ..inner }
            }
            Expr::Compare(comparison) => {
                let first = self.expression(&comparison.expr);
                let rest = comparison.ops.iter().map(|next| self.expression(&next.expr));
                sum(std::iter::once(first).chain(rest.collect::<Vec<_>>()))
            }
            Expr::List(list) => {
                let items: Vec<_> = list.items.iter().map(|item| self.expression(item)).collect();
                sum(items)
            }
            Expr::Map(map) => {
                let items = map.keys.iter().chain(&map.values);
                let items: Vec<_> = items.map(|item| self.expression(item)).collect();
                sum(items)
            }
            Expr::Var(_) => Estimate::default(),
            Expr::Slice(slice) => {
                let bounds = slice.start.iter().chain(&slice.stop).chain(&slice.step);
                self.expressions([&slice.expr].into_iter().chain(bounds));
                Estimate::default()
            }
            Expr::IfExpr(branch) => {
                let parts = [&branch.test_expr, &branch.true_expr];
                self.expressions(parts.into_iter().chain(&branch.false_expr));
                Estimate::default()
            }
            Expr::Filter(filter) => {
                self.expressions(&filter.expr);
                self.arguments(&filter.args);
                Estimate::default()
            }
            Expr::Test(test) => {
                self.expressions([&test.expr]);
                self.arguments(&test.args);
                Estimate::default()
            }
            Expr::GetAttr(attribute) => {
                self.expressions([&attribute.expr]);
                Estimate::default()
            }
            Expr::GetItem(item) => {
                self.expressions([&item.expr, &item.subscript_expr]);
                Estimate::default()
            }
            Expr::Call(call) => {
                self.expressions([&call.expr]);
                self.arguments(&call.args);
                Estimate::default()
            }
        }
    }
}

/// The result of an operator on constants.
fn computed(operator: BinOpKind, left: Constant, right: Constant, cost: u64) -> Estimate {
    let sum = left.bytes.saturating_add(right.bytes);
    let (bytes, factor) = match operator {
        // a text or a list as often as a number says
        BinOpKind::Mul => {
            let repeated = (left.bytes as f64 * right.factor).max(right.bytes as f64 * left.factor);
            (repeated as u64, left.factor * right.factor)
        }
        BinOpKind::Pow => (sum, left.factor.powf(right.factor)),
        // division by a fraction
        BinOpKind::Div | BinOpKind::FloorDiv => (sum, f64::INFINITY),
        _ => (sum, left.factor + right.factor),
    };
    Estimate { cost: cost.saturating_add(bytes), constant: Some(Constant { bytes, factor }) }
}

/// A list of such items, or a comparison of them.
fn sum(items: impl IntoIterator<Item = Estimate>) -> Estimate {
    let mut list = Estimate { cost: 1, constant: Some(Constant { bytes: ITEM, factor: 1.0 }) };
    for item in items {
        list.cost = list.cost.saturating_add(item.cost);
        list.constant = list
            .constant
            .zip(item.constant)
            .map(|(list, item)| Constant { bytes: list.bytes.saturating_add(item.bytes), factor: 1.0 });
    }
    list.cost = list.cost.saturating_add(list.constant.map_or(0, |list| list.bytes));
    list
}
