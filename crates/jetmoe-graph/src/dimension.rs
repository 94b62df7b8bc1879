//! Sizes that are known only when a graph runs, as polynomials over named symbols.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Mul};
use std::sync::Arc;

/// The size of one dimension: a polynomial with whole coefficients over named symbols, in normal form, so that equal
/// sizes compare equal however they were computed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dimension {
    /// Coefficient of each product of symbols; the empty product is the constant term. No coefficient is zero.
    terms: BTreeMap<Vec<Arc<str>>, i64>,
}

impl Dimension {
    /// A size known only at run time.
    pub fn symbol(name: &str) -> Self {
        Dimension { terms: BTreeMap::from([(vec![Arc::from(name)], 1)]) }
    }

    /// The size, where it is the same in every run.
    pub fn fixed(&self) -> Option<i64> {
        match self.terms.len() {
            0 => Some(0),
            1 => self.terms.get(&[] as &[Arc<str>]).copied(),
            _ => None,
        }
    }

    /// Products of symbols with their coefficients.
    pub(crate) fn terms(&self) -> impl Iterator<Item = (&[Arc<str>], i64)> {
        self.terms.iter().map(|(symbols, coefficient)| (symbols.as_slice(), *coefficient))
    }

    fn accumulate(&mut self, symbols: Vec<Arc<str>>, coefficient: i64) {
        let sum = self.terms.entry(symbols.clone()).or_insert(0);
        *sum += coefficient;
        if *sum == 0 {
            self.terms.remove(&symbols);
        }
    }
}

impl From<i64> for Dimension {
    fn from(size: i64) -> Self {
        let mut dimension = Dimension { terms: BTreeMap::new() };
        dimension.accumulate(Vec::new(), size);
        dimension
    }
}

impl From<usize> for Dimension {
    fn from(size: usize) -> Self {
        Dimension::from(size as i64)
    }
}

impl Add for &Dimension {
    type Output = Dimension;

    fn add(self, other: &Dimension) -> Dimension {
        let mut sum = self.clone();
        for (symbols, coefficient) in &other.terms {
            sum.accumulate(symbols.clone(), *coefficient);
        }
        sum
    }
}

impl Mul for &Dimension {
    type Output = Dimension;

    fn mul(self, other: &Dimension) -> Dimension {
        let mut product = Dimension::from(0_i64);
        for (left, left_coefficient) in &self.terms {
            for (right, right_coefficient) in &other.terms {
                let mut symbols = [left.as_slice(), right.as_slice()].concat();
                symbols.sort();
                product.accumulate(symbols, left_coefficient * right_coefficient);
            }
        }
        product
    }
}

impl fmt::Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.terms.is_empty() {
            return f.write_str("0");
        }
        for (index, (symbols, coefficient)) in self.terms.iter().enumerate() {
            let sign = match (index, *coefficient < 0) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            f.write_str(sign)?;
            let magnitude = coefficient.unsigned_abs();
            if symbols.is_empty() || magnitude != 1 {
                write!(f, "{magnitude}")?;
                f.write_str(if symbols.is_empty() { "" } else { " * " })?;
            }
            f.write_str(&symbols.join(" * "))?;
        }
        Ok(())
    }
}

/// Sizes of all dimensions of a value, outermost first. A scalar has none.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Shape(pub Vec<Dimension>);

impl Shape {
    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements.
    pub fn elements(&self) -> Dimension {
        self.0.iter().fold(Dimension::from(1_i64), |product, dimension| &product * dimension)
    }

    /// The shape of two operands of an element-wise operator, by NumPy's rules; `None` if they do not fit.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        let one = Dimension::from(1_i64);
        let rank = self.rank().max(other.rank());
        let from_end = |shape: &Shape, index: usize| match (index + shape.rank()).checked_sub(rank) {
            Some(own) => shape.0[own].clone(),
            None => one.clone(),
        };
        (0..rank)
            .map(|index| match (from_end(self, index), from_end(other, index)) {
                (left, right) if left == right => Some(left),
                (left, right) if left == one => Some(right),
                (left, right) if right == one => Some(left),
                _ => None,
            })
            .collect::<Option<Vec<_>>>()
            .map(Shape)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (index, dimension) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { ", " })?;
            write!(f, "{dimension}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests;
