//! The order in which the members of a set of small numbers were last used: a doubly linked list in a
//! vector, every operation O(1).

/// No member.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct LruLink {
    /// The member used just before this one.
    older: u32,
    /// The member used just after this one.
    newer: u32,
    member: bool,
}

const OUTSIDE: LruLink = LruLink {
    older: NONE,
    newer: NONE,
    member: false,
};

/// The order of use.
#[derive(Debug)]
pub(super) struct LruOrder {
    links: Vec<LruLink>,
    oldest: u32,
    newest: u32,
}

impl Default for LruOrder {
    fn default() -> Self {
        Self {
            links: Vec::new(),
            oldest: NONE,
            newest: NONE,
        }
    }
}

impl LruOrder {
    /// `number` is used now; it becomes a member if it is none.
    pub fn touch(&mut self, number: u32) {
        if self.newest == number {
            return;
        }
        self.remove(number);
        let place = number as usize;
        if place >= self.links.len() {
            self.links.resize(place + 1, OUTSIDE);
        }
        self.links[place] = LruLink {
            older: self.newest,
            newer: NONE,
            member: true,
        };
        match self.newest {
            NONE => self.oldest = number,
            newest => self.links[newest as usize].newer = number,
        }
        self.newest = number;
    }

    /// `number` is no longer a member.
    pub fn remove(&mut self, number: u32) {
        let Some(link) = self.links.get_mut(number as usize) else {
            return;
        };
        let LruLink {
            older,
            newer,
            member,
        } = std::mem::replace(link, OUTSIDE);
        if !member {
            return;
        }
        match older {
            NONE => self.oldest = newer,
            older => self.links[older as usize].newer = newer,
        }
        match newer {
            NONE => self.newest = older,
            newer => self.links[newer as usize].older = older,
        }
    }

    /// The member that was not used for the longest time.
    pub fn oldest(&self) -> Option<u32> {
        (self.oldest != NONE).then_some(self.oldest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_order_is_that_of_a_plain_list(
            steps in prop::collection::vec((any::<bool>(), 0u32..8), 0..200),
        ) {
            let (mut recency, mut list) = (LruOrder::default(), Vec::new());
            for (touch, number) in steps {
                list.retain(|&other| other != number);
                if touch {
                    list.push(number);
                    recency.touch(number);
                } else {
                    recency.remove(number);
                }
                prop_assert_eq!(recency.oldest(), list.first().copied());
            }
            for number in list {
                prop_assert_eq!(recency.oldest(), Some(number));
                recency.remove(number);
            }
            prop_assert_eq!(recency.oldest(), None);
        }
    }
}
