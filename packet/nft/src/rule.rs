//! Rules: expressions in order, in a chain.

use crate::{Counter, Expression, Verdict};

/// What can be put into a rule: one expression or several, from [`crate::matches`] and [`crate::statement`].
pub trait IntoExpressions {
    /// Appends them.
    fn append_to(self, rule: &mut Vec<Expression>);
}

impl IntoExpressions for Expression {
    fn append_to(self, rule: &mut Vec<Expression>) {
        rule.push(self);
    }
}

impl IntoExpressions for Vec<Expression> {
    fn append_to(mut self, rule: &mut Vec<Expression>) {
        rule.append(&mut self);
    }
}

impl<const N: usize> IntoExpressions for [Expression; N] {
    fn append_to(self, rule: &mut Vec<Expression>) {
        rule.extend(self);
    }
}

impl IntoExpressions for Verdict {
    fn append_to(self, rule: &mut Vec<Expression>) {
        rule.push(Expression::Verdict(self));
    }
}

/// A rule of a chain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// The chain's name.
    pub chain: String,
    /// What it does, in order.
    pub expressions: Vec<Expression>,
    /// Shown by `nft list`; at most 127 bytes.
    pub comment: Option<String>,
    /// The kernel's number for it, in dumps. Needed to delete or replace it.
    pub handle: Option<u64>,
    /// With verb add: after the rule with this handle; with insert: before it. `None`: at the end, at the beginning.
    pub position: Option<u64>,
}

impl Rule {
    /// An empty rule, which matches everything and does nothing yet.
    pub fn new(chain: impl Into<String>) -> Self {
        Self { chain: chain.into(), expressions: Vec::new(), comment: None, handle: None, position: None }
    }

    /// The rule with this handle, for verbs that need no more (delete).
    pub fn with_handle(chain: impl Into<String>, handle: u64) -> Self {
        Self { handle: Some(handle), ..Self::new(chain) }
    }

    /// And then this.
    #[must_use]
    pub fn then(mut self, more: impl IntoExpressions) -> Self {
        more.append_to(&mut self.expressions);
        self
    }

    /// And count.
    #[must_use]
    pub fn counter(self) -> Self {
        self.then(Expression::Counter(Counter::default()))
    }

    /// And accept.
    #[must_use]
    pub fn accept(self) -> Self {
        self.then(Verdict::Accept)
    }

    /// And drop.
    #[must_use]
    pub fn drop(self) -> Self {
        self.then(Verdict::Drop)
    }

    /// And go back to the calling chain.
    #[must_use]
    pub fn returns(self) -> Self {
        self.then(Verdict::Return)
    }

    /// And jump.
    #[must_use]
    pub fn jump(self, chain: impl Into<String>) -> Self {
        self.then(Verdict::jump(chain))
    }

    /// And go.
    #[must_use]
    pub fn goto(self, chain: impl Into<String>) -> Self {
        self.then(Verdict::goto(chain))
    }

    /// With this comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Whether both say the same in the same chain, whatever their handles, positions and counts.
    pub fn means(&self, other: &Self) -> bool {
        self.chain == other.chain
            && self.comment == other.comment
            && self.expressions.len() == other.expressions.len()
            && self
                .expressions
                .iter()
                .zip(&other.expressions)
                .all(|(one, two)| one == two || one.without_state() == two.without_state())
    }
}
