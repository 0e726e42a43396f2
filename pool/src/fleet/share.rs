//! Max-min fair shares: nobody gets more while somebody who asked has less.

/// Shares `stock` among `asked`; each gets at most what it asked for, and shares that were cut
/// differ by one at most.
pub(super) fn evenly(mut stock: u32, asked: &[u32]) -> Vec<u32> {
    let total: u64 = asked.iter().map(|&n| u64::from(n)).sum();
    if total <= u64::from(stock) {
        return asked.to_vec();
    }
    let mut order: Vec<usize> = (0..asked.len()).collect();
    order.sort_by_key(|&index| asked[index]);
    let mut shares = vec![0; asked.len()];
    for (served, &index) in order.iter().enumerate() {
        let rest = u32::try_from(order.len() - served).unwrap_or(u32::MAX);
        let share = asked[index].min(stock / rest);
        shares[index] = share;
        stock -= share;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_wishes_are_met_and_the_rest_is_split() {
        assert_eq!(evenly(10, &[1, 20, 20]), [1, 4, 5]);
        assert_eq!(evenly(0, &[3, 3]), [0, 0]);
        assert_eq!(evenly(100, &[3, 4]), [3, 4]);
        assert_eq!(evenly(5, &[]), [] as [u32; 0]);
    }

    proptest! {
        #[test]
        fn nothing_is_wasted_and_nobody_envies(stock in 0u32..500, asked in prop::collection::vec(0u32..60, 0..40)) {
            let shares = evenly(stock, &asked);
            let given: u32 = shares.iter().sum();
            prop_assert_eq!(given, stock.min(asked.iter().sum()));
            for (&share, &wish) in shares.iter().zip(&asked) {
                prop_assert!(share <= wish);
                if share < wish {
                    prop_assert!(shares.iter().all(|&other| other <= share + 1), "{:?} of {:?}", shares, asked);
                }
            }
        }
    }
}
