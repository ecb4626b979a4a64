//! Random numbers for simulations in tests. Every test run gets the same ones.

/// A splitmix64 generator; the number is its state.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^ (bits >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.bits() % limit as u64).expect("below")
    }

    /// Returns a number from 0 to 1, evenly distributed.
    pub(crate) fn next(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Returns a number from −0.5 to 0.5, evenly distributed.
    pub(crate) fn centred(&mut self) -> f64 {
        self.next() - 0.5
    }

    pub(crate) fn normal(&mut self) -> f64 {
        let (radius, angle) = (1.0 - self.next(), self.next());
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }

    /// Returns normal noise in which one value in ten is `times` as far off, as when a neighbour
    /// wakes up.
    pub(crate) fn with_outliers(&mut self, times: f64) -> f64 {
        let width = if self.next() < 0.1 { times } else { 1.0 };
        width * self.normal()
    }

    /// Returns normal noise around two values on either side of 0, as when a scheduler places
    /// threads in one of two ways.
    pub(crate) fn in_two_groups(&mut self, distance: f64) -> f64 {
        let side = if self.next() < 0.5 {
            distance
        } else {
            -distance
        };
        side + self.normal()
    }
}
