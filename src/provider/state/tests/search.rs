//! Every state that can be reached, nearest first.

use super::{Event, Trail, normal::form, world::World};
use std::collections::{HashMap, hash_map::Entry};

/// One in so many of those that were reached twice is compared with what was reached first.
const COMPARED: u64 = 199;

/// A state is kept as the way to it: its events, last first.
#[derive(Clone, Copy)]
struct Node {
    before: u32,
    event: u8,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Explored {
    pub(super) states: usize,
    pub(super) steps: u64,
    pub(super) compared: u64,
}

/// What is known of the states.
pub(super) struct Search<'a> {
    starts: &'a [&'a [Event]],
    events: &'a [Event],
    roll: f64,
    nodes: Vec<Node>,
    known: HashMap<u128, u32>,
    explored: Explored,
}

impl<'a> Search<'a> {
    /// Takes all that `events` lead to, up to `depth` of them, from each of `starts`. Whatever is random always falls as `roll`.
    pub(super) fn of(starts: &'a [&'a [Event]], events: &'a [Event], roll: f64, depth: u32) -> Explored {
        let mut search =
            Self { starts, events, roll, nodes: Vec::new(), known: HashMap::new(), explored: Explored::default() };
        for start in 0..starts.len() {
            let index = search.add(Node { before: u32::MAX, event: u8::try_from(start).expect("few") });
            let (world, _trail) = search.at(index);
            search.known.entry(form(&world)).or_insert(index);
        }
        let mut layer = 0..search.nodes.len();
        for _ in 0..depth {
            let reached = search.nodes.len();
            for index in layer {
                search.follow(u32::try_from(index).expect("checked when added"));
            }
            layer = reached..search.nodes.len();
        }
        search.explored.states = search.known.len();
        search.explored
    }

    fn add(&mut self, node: Node) -> u32 {
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).expect("fewer than four billion states")
    }

    /// The world at the end of that way, and the way.
    fn at(&self, index: u32) -> (World, Trail) {
        let (mut way, mut node) = (Vec::new(), self.nodes[index as usize]);
        while node.before != u32::MAX {
            way.push(self.events[usize::from(node.event)]);
            node = self.nodes[node.before as usize];
        }
        way.extend(self.starts[usize::from(node.event)].iter().rev());
        let mut world = World::new();
        world.roll = self.roll;
        let mut trail = Trail(Vec::new());
        for event in way.into_iter().rev() {
            trail.0.push(event);
            assert!(world.allows(event));
            world.step(event);
        }
        (world, trail)
    }

    /// All that can happen next.
    fn follow(&mut self, before: u32) {
        let (world, mut trail) = self.at(before);
        for (event, what) in (0..).zip(self.events) {
            if !world.allows(*what) {
                continue;
            }
            trail.0.push(*what);
            let mut next = world.clone();
            next.step(*what);
            self.explored.steps += 1;
            let index = u32::try_from(self.nodes.len()).expect("fewer than four billion states");
            match self.known.entry(form(&next)) {
                Entry::Vacant(entry) => {
                    entry.insert(index);
                    self.add(Node { before, event });
                }
                Entry::Occupied(entry) => {
                    let first = *entry.get();
                    if self.explored.steps.is_multiple_of(COMPARED) {
                        self.compare(first, &next);
                    }
                }
            }
            trail.0.pop();
        }
    }

    /// Two that are said to be the same: so is what comes of them.
    fn compare(&mut self, first: u32, other: &World) {
        self.explored.compared += 1;
        let (first, _trail) = self.at(first);
        assert_eq!(form(&first), form(other));
        for event in self.events {
            assert_eq!(first.allows(*event), other.allows(*event), "{event:?} tells them apart");
            if first.allows(*event) {
                let (mut one, mut two) = (first.clone(), other.clone());
                assert_eq!(one.step(*event), two.step(*event), "{event:?} is answered otherwise");
                assert_eq!(form(&one), form(&two), "{event:?} tells them apart");
            }
        }
    }
}
