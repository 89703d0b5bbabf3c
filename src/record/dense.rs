//! A map from the ids that a probe gives, which it counts up from 1.

use std::collections::BTreeMap;

/// What ids stand for. Ids far beyond their number are kept apart, so that memory grows with what was inserted, not with
/// what a damaged file claims.
#[derive(Clone, Debug)]
pub struct Dense<T> {
    near: Vec<Option<T>>,
    /// How many were inserted, or more.
    count: usize,
    far: BTreeMap<u32, T>,
}

impl<T> Default for Dense<T> {
    fn default() -> Dense<T> {
        Dense {
            near: Vec::new(),
            count: 0,
            far: BTreeMap::new(),
        }
    }
}

impl<T> Dense<T> {
    /// How far ahead of twice their number an id may be.
    const GAP: usize = 1 << 12;

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn insert(&mut self, id: u32, value: T) {
        let at = id as usize;
        self.count += 1;
        if at >= self.near.len() {
            if at >= 2 * self.count + Dense::<T>::GAP {
                self.far.insert(id, value);
                return;
            }
            self.near.resize_with(at + 1, || None);
        }
        self.near[at] = Some(value);
    }

    #[inline(always)]
    pub fn get(&self, id: u32) -> Option<&T> {
        match self.near.get(id as usize) {
            Some(Some(value)) => Some(value),
            _ if self.far.is_empty() => None,
            _ => self.far.get(&id),
        }
    }

    pub fn get_mut(&mut self, id: u32) -> Option<&mut T> {
        match self.near.get_mut(id as usize) {
            Some(Some(value)) => Some(value),
            _ => self.far.get_mut(&id),
        }
    }

    /// All, by id.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        let near = (0..).zip(&self.near);
        let near = near.filter_map(|(id, value)| Some((id, value.as_ref()?)));
        // an id that was far may have become near since
        let far = self.far.iter().map(|(id, value)| (*id, value));
        near.chain(far.filter(|(id, _)| !matches!(self.near.get(*id as usize), Some(Some(_)))))
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.near.iter_mut().flatten().chain(self.far.values_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_claim_too_much_cost_what_they_are() {
        let mut all = Dense::default();
        assert!(all.is_empty());
        for id in [1, 2, 3, u32::MAX, u32::MAX - 1, 70_000] {
            all.insert(id, id);
        }
        assert_eq!(all.near.len(), 4);
        let ids: Vec<_> = all.iter().map(|(id, _)| id).collect();
        assert_eq!(ids, [1, 2, 3, 70_000, u32::MAX - 1, u32::MAX]);
        assert_eq!((all.get(70_000), all.get(4)), (Some(&70_000), None));
        all.insert(2, 9);
        assert_eq!(all.get(2), Some(&9));
    }

    #[test]
    fn an_id_that_was_far_and_comes_near_is_there_once() {
        let mut all = Dense::default();
        let far = Dense::<u32>::GAP as u32 + 10;
        all.insert(far, 1);
        for id in 1..100 {
            all.insert(id, id);
        }
        all.insert(far, 2);
        assert_eq!(all.iter().filter(|(id, _)| *id == far).count(), 1);
        assert_eq!(all.get(far), Some(&2));
    }
}
