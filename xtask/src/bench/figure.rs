//! What must hold, and whether it does.

/// A measured value and what it must keep to.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    what: String,
    value: f64,
    bound: Bound,
}

#[derive(Clone, Copy, Debug)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl Figure {
    pub(super) fn at_most(what: impl Into<String>, value: f64, limit: f64) -> Self {
        Self {
            what: what.into(),
            value,
            bound: Bound::AtMost(limit),
        }
    }

    pub(super) fn at_least(what: impl Into<String>, value: f64, limit: f64) -> Self {
        Self {
            what: what.into(),
            value,
            bound: Bound::AtLeast(limit),
        }
    }

    /// What is no number holds nothing.
    fn holds(&self) -> bool {
        match self.bound {
            Bound::AtMost(limit) => self.value <= limit,
            Bound::AtLeast(limit) => self.value >= limit,
        }
    }
}

/// Prints a line for each; whether all hold.
pub(super) fn verdict(figures: &[Figure]) -> bool {
    println!();
    for figure in figures {
        let verdict = if figure.holds() { "holds" } else { "DOES NOT HOLD" };
        let (word, limit) = match figure.bound {
            Bound::AtMost(limit) => ("at most", limit),
            Bound::AtLeast(limit) => ("at least", limit),
        };
        println!(
            "{verdict:<13} {}: {:.2}, {word} {limit:.2}",
            figure.what, figure.value
        );
    }
    figures.iter().all(Figure::holds)
}

#[cfg(test)]
mod tests {
    use super::Figure;

    #[test]
    fn a_figure_keeps_to_its_side_of_the_limit() {
        assert!(Figure::at_most("a", 0.5, 0.5).holds() && !Figure::at_most("a", 0.51, 0.5).holds());
        assert!(Figure::at_least("a", 1.3, 1.3).holds() && !Figure::at_least("a", 1.29, 1.3).holds());
        assert!(
            !Figure::at_most("a", f64::NAN, 1.0).holds() && !Figure::at_least("a", f64::NAN, 1.0).holds()
        );
    }
}
