//! Kept prefixes: a radix tree over token ids whose nodes own saved keys and values, with a memory limit.
//!
//! A saved payload covers consecutive tokens, and its first tokens can be restored without the others. Where a new sequence leaves
//! the middle of a node, the node is split, and both halves share the payload: the second half is restored from the beginning of
//! the payload. A payload is dropped with the last node that uses it.

use std::collections::BTreeMap;
use std::ops::Range;

/// Keys and values of consecutive tokens.
pub(super) trait Payload {
    /// Memory of it.
    fn bytes(&self) -> u64;
}

/// The tree. The order of nodes by their use decides which is dropped.
#[derive(Debug)]
pub(super) struct PrefixTree<T> {
    /// By number; `None` for numbers that are free. The first is the root, which has no tokens.
    nodes: Vec<Option<Node>>,
    payloads: BTreeMap<usize, Kept<T>>,
    next_payload: usize,
    limit: u64,
    bytes: u64,
    clock: u64,
}

#[derive(Debug)]
struct Node {
    parent: usize,
    /// Tokens from those of the parent on.
    tokens: Vec<u32>,
    /// Number of tokens from the root to the end of this node.
    end: usize,
    children: BTreeMap<u32, usize>,
    /// The payload whose tokens end behind or at `end`; `None` for the root.
    payload: Option<usize>,
    used: u64,
}

#[derive(Debug)]
struct Kept<T> {
    /// How many tokens are before it.
    first: usize,
    /// Number of nodes that use it.
    nodes: usize,
    payload: T,
}

/// The longest kept prefix of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct FoundPrefix {
    /// Number of its tokens.
    pub(super) tokens: usize,
    /// What to restore, in order.
    pub(super) parts: Vec<FoundPart>,
}

/// The first tokens of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundPart {
    /// Its number, for [`PrefixTree::payload`].
    pub(super) payload: usize,
    /// How many tokens are before it.
    pub(super) first: usize,
    /// Number of its first tokens.
    pub(super) tokens: usize,
}

const ROOT: usize = 0;

/// Where a walk from the root ends.
struct Walk {
    /// The last node of which a token was found.
    node: usize,
    /// Number of tokens that were found, from the root on.
    tokens: usize,
}

impl<T: Payload> PrefixTree<T> {
    /// An empty tree whose payloads take at most `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        let root = Node {
            parent: ROOT,
            tokens: Vec::new(),
            end: 0,
            children: BTreeMap::new(),
            payload: None,
            used: 0,
        };
        let nodes = vec![Some(root)];
        PrefixTree { nodes, payloads: BTreeMap::new(), next_payload: 0, limit, bytes: 0, clock: 0 }
    }

    /// Memory of all payloads.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The limit of that memory.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// The payload of a number that [`PrefixTree::find`] returned, before the tree changed.
    pub(super) fn payload(&self, number: usize) -> Option<&T> {
        self.payloads.get(&number).map(|kept| &kept.payload)
    }

    /// The longest kept prefix of a sequence, without counting it as used.
    pub(super) fn longest(&self, tokens: &[u32]) -> usize {
        self.walk(tokens).tokens
    }

    /// The longest kept prefix of a sequence, and what to restore for it.
    pub(super) fn find(&mut self, tokens: &[u32]) -> FoundPrefix {
        let walk = self.walk(tokens);
        self.touch(walk.node);
        let mut found = FoundPrefix { tokens: walk.tokens, parts: Vec::new() };
        let (mut node, mut end) = (walk.node, walk.tokens);
        // from the end backwards: a payload covers the nodes from its first token on
        while end > 0 {
            let Some((number, kept)) = self.kept(node) else { return FoundPrefix::default() };
            found.parts.push(FoundPart { payload: number, first: kept.first, tokens: end - kept.first });
            end = kept.first;
            while node != ROOT && self.node(node).is_some_and(|node| node.end > end) {
                node = self.node(node).map_or(ROOT, |node| node.parent);
            }
        }
        found.parts.reverse();
        found
    }

    /// Keeps a sequence. `save` makes the payload of the tokens that are new; without one nothing is kept. Payloads that were not
    /// used for the longest time are dropped beyond the limit.
    ///
    /// # Errors
    /// That of `save`.
    pub(super) fn insert<E>(
        &mut self,
        tokens: &[u32],
        save: impl FnOnce(Range<usize>) -> Result<Option<T>, E>,
    ) -> Result<(), E> {
        let walk = self.walk(tokens);
        self.touch(walk.node);
        if walk.tokens == tokens.len() {
            return Ok(());
        }
        let Some(payload) = save(walk.tokens..tokens.len())? else { return Ok(()) };
        let bytes = payload.bytes();
        if bytes > self.limit {
            return Ok(());
        }
        let parent = self.split(walk.node, walk.tokens);
        let number = self.next_payload;
        self.next_payload += 1;
        self.payloads.insert(number, Kept { first: walk.tokens, nodes: 1, payload });
        self.bytes += bytes;
        self.add_node(parent, tokens[walk.tokens..].to_vec(), Some(number));
        while self.bytes > self.limit && self.evict() {}
        Ok(())
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.limit);
    }

    fn node(&self, number: usize) -> Option<&Node> {
        self.nodes.get(number).and_then(Option::as_ref)
    }

    fn node_mut(&mut self, number: usize) -> Option<&mut Node> {
        self.nodes.get_mut(number).and_then(Option::as_mut)
    }

    fn kept(&self, node: usize) -> Option<(usize, &Kept<T>)> {
        let number = self.node(node)?.payload?;
        Some((number, self.payloads.get(&number)?))
    }

    fn walk(&self, tokens: &[u32]) -> Walk {
        let mut walk = Walk { node: ROOT, tokens: 0 };
        while let Some(first) = tokens.get(walk.tokens)
            && let Some(child) = self.node(walk.node).and_then(|node| node.children.get(first).copied())
            && let Some(node) = self.node(child)
        {
            let rest = &tokens[walk.tokens..];
            let same = node.tokens.iter().zip(rest).take_while(|(kept, token)| kept == token).count();
            walk = Walk { node: child, tokens: walk.tokens + same };
            if same < node.tokens.len() {
                break;
            }
        }
        walk
    }

    /// Counts a node and those before it as used.
    fn touch(&mut self, mut number: usize) {
        self.clock += 1;
        let clock = self.clock;
        while number != ROOT
            && let Some(node) = self.node_mut(number)
        {
            node.used = clock;
            number = node.parent;
        }
    }

    /// The node that ends behind `end` tokens; the end is in the tokens of `number` or at their end. Splits it if it must.
    fn split(&mut self, number: usize, end: usize) -> usize {
        let Some(node) = self.node_mut(number) else { return ROOT };
        if node.end == end {
            return number;
        }
        let at = node.tokens.len() - (node.end - end);
        let rest = node.tokens.split_off(at);
        let children = std::mem::take(&mut node.children);
        let (payload, used, rest_end) = (node.payload, node.used, node.end);
        node.end = end;
        let second = self.add_node(number, rest, payload);
        for child in children.values() {
            if let Some(child) = self.node_mut(*child) {
                child.parent = second;
            }
        }
        if let Some(second) = self.node_mut(second) {
            second.children = children;
            second.used = used;
            second.end = rest_end;
        }
        if let Some(kept) = payload.and_then(|payload| self.payloads.get_mut(&payload)) {
            kept.nodes += 1;
        }
        number
    }

    fn add_node(&mut self, parent: usize, tokens: Vec<u32>, payload: Option<usize>) -> usize {
        let free = self.nodes.iter().position(Option::is_none);
        let number = free.unwrap_or(self.nodes.len());
        let first = tokens.first().copied();
        let end = self.node(parent).map_or(0, |parent| parent.end) + tokens.len();
        let node = Node { parent, tokens, end, children: BTreeMap::new(), payload, used: self.clock };
        match free {
            Some(free) => self.nodes[free] = Some(node),
            None => self.nodes.push(Some(node)),
        }
        if let (Some(first), Some(parent)) = (first, self.node_mut(parent)) {
            parent.children.insert(first, number);
        }
        number
    }

    /// Drops the leaf that was not used for the longest time; false if there is none.
    fn evict(&mut self) -> bool {
        let nodes = self.nodes.iter().enumerate().skip(1);
        let leaves = nodes.filter_map(|(number, node)| node.as_ref().map(|node| (number, node)));
        let leaves = leaves.filter(|(_, node)| node.children.is_empty());
        let Some((number, _)) = leaves.min_by_key(|(_, node)| node.used) else { return false };
        let Some(node) = self.nodes[number].take() else { return false };
        if let (Some(first), Some(parent)) = (node.tokens.first(), self.node_mut(node.parent)) {
            parent.children.remove(first);
        }
        if let Some(payload) = node.payload
            && let Some(kept) = self.payloads.get_mut(&payload)
        {
            kept.nodes -= 1;
            if kept.nodes == 0 {
                self.bytes -= kept.payload.bytes();
                self.payloads.remove(&payload);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
