//! Goals: a number that the project wants to reach, and what was measured.

use std::fmt::Write as _;

/// A number and its target.
pub(crate) struct Goal {
    pub(crate) what: String,
    /// `None` if a target that it needs was not measured.
    pub(crate) measured: Option<f64>,
    pub(crate) target: Target,
    pub(crate) unit: Unit,
}

#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
    /// Reported only.
    Open,
}

#[derive(Clone, Copy)]
pub(crate) enum Unit {
    Ratio,
    Percent,
}

impl Goal {
    /// Whether the target was reached; `None` if that is unknown.
    pub(crate) fn is_reached(&self) -> Option<bool> {
        let measured = self.measured?;
        match self.target {
            Target::AtLeast(target) => Some(measured >= target),
            Target::AtMost(target) => Some(measured <= target),
            Target::Below(target) => Some(measured < target),
            Target::Open => None,
        }
    }

    fn row(&self) -> String {
        let number = |number: f64| match self.unit {
            Unit::Percent => format!("{:.1} %", number * 100.0),
            Unit::Ratio => format!("{number:.2}"),
        };
        let target = match self.target {
            Target::AtLeast(target) => format!("≥ {}", number(target)),
            Target::AtMost(target) => format!("≤ {}", number(target)),
            Target::Below(target) => format!("< {}", number(target)),
            Target::Open => "–".to_owned(),
        };
        let verdict = match (self.measured, self.is_reached()) {
            (None, _) => "not measured",
            (_, Some(true)) => "reached",
            (_, Some(false)) => "**missed**",
            (_, None) => "",
        };
        format!("| {} | {} | {target} | {verdict} |", self.what, self.measured.map_or("–".to_owned(), number))
    }
}

/// The section of a page with all goals.
pub(crate) fn goals_section(goals: &[Goal]) -> String {
    let mut section =
        "\n## Against the targets\n\n| | measured | target | |\n| --- | ---: | ---: | --- |\n".to_owned();
    for goal in goals {
        let _ = writeln!(section, "{}", goal.row());
    }
    section
}
