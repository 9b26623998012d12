//! The loops of the interleaved coders over vectors of any width: written once, compiled for each instruction set.

/// Defines `decode` and `encode` with the features named. The file that uses it defines, with the same features:
///
/// - `Vector`: `WIDTH` states; `load`, `store`: from and to as many states;
/// - `slots_of(slots, contexts, states)`: the table's entries, unsafe: contexts must have slots;
/// - `low_bytes(vector, out)`: the low byte of each lane;
/// - `step(slot, states)`: states before they take a word;
/// - `renew(states, words)`: takes words into lanes below `LOWER`, in order, and says how many;
/// - `entries_of(entries, symbols, contexts)`: the table's entries, unsafe like `slots_of`;
/// - `emit(states, entry, words, at)`: puts the low words of lanes that overflow before `at`, in order; returns the
///   states without them and how many went;
/// - `put(states, entry)`: the states with a symbol more.
macro_rules! coders {
    ($features:literal) => {
        /// Decodes whole groups as long as 64 bytes of words are left; returns symbols done and bytes taken.
        ///
        /// The caller has checked that every context has its slots in `slots`.
        pub(super) fn decode(
            slots: &[u32],
            words: &[u8],
            contexts: &[u8],
            states: &mut [u32; LANES],
            out: &mut [u8],
        ) -> (usize, usize) {
            // SAFETY: this level is only chosen where the instructions were detected.
            unsafe { decode_groups(slots, words, contexts, states, out) }
        }

        #[target_feature(enable = $features)]
        fn load_all(states: &[u32; LANES]) -> [Vector; LANES / WIDTH] {
            let parts = states.as_chunks::<WIDTH>().0;
            let mut x = [load(&parts[0]); LANES / WIDTH];
            for (x, part) in x.iter_mut().zip(parts) {
                *x = load(part);
            }
            x
        }

        #[target_feature(enable = $features)]
        fn store_all(x: [Vector; LANES / WIDTH], states: &mut [u32; LANES]) {
            for (x, part) in x.into_iter().zip(states.as_chunks_mut::<WIDTH>().0) {
                store(x, part);
            }
        }

        #[target_feature(enable = $features)]
        fn decode_groups(
            slots: &[u32],
            words: &[u8],
            contexts: &[u8],
            states: &mut [u32; LANES],
            out: &mut [u8],
        ) -> (usize, usize) {
            let mut x = load_all(states);
            let (mut done, mut at) = (0, 0);
            let groups = contexts.as_chunks::<LANES>().0.iter().zip(out.as_chunks_mut::<LANES>().0);
            for (contexts, out) in groups {
                if words.len() - at < 2 * LANES {
                    break;
                }
                let parts = contexts.as_chunks::<WIDTH>().0.iter().zip(out.as_chunks_mut::<WIDTH>().0);
                for (x, (c, o)) in x.iter_mut().zip(parts) {
                    // SAFETY: the caller has checked the contexts.
                    let slot = unsafe { slots_of(slots, c, *x) };
                    low_bytes(slot, o);
                    let (next, taken) = renew(step(slot, *x), &words[at..at + 2 * WIDTH]);
                    *x = next;
                    at += 2 * taken;
                }
                done += LANES;
            }
            store_all(x, states);
            (done, at)
        }

        /// Encodes whole groups backwards; returns where the words begin.
        pub(super) fn encode(
            entries: &[[u32; 256]],
            symbols: &[u8],
            contexts: &[u8],
            states: &mut [u32; LANES],
            words: &mut [u8],
            at: usize,
        ) -> usize {
            let most = Level::detect().run(|| contexts.iter().fold(0, |m, &c| m.max(c)));
            assert!(usize::from(most) < entries.len(), "contexts have tables");
            assert!(
                contexts.len() >= symbols.len() && at >= 2 * symbols.len() + 32,
                "room for a word a symbol"
            );
            // SAFETY: this level is only chosen where the instructions were detected; contexts were checked.
            unsafe { encode_groups(entries, symbols, contexts, states, words, at) }
        }

        /// Every context is below the number of entries.
        #[target_feature(enable = $features)]
        unsafe fn encode_groups(
            entries: &[[u32; 256]],
            symbols: &[u8],
            contexts: &[u8],
            states: &mut [u32; LANES],
            words: &mut [u8],
            mut at: usize,
        ) -> usize {
            let mut x = load_all(states);
            let groups = symbols.as_chunks::<LANES>().0.iter().zip(contexts.as_chunks::<LANES>().0);
            for (s, c) in groups.rev() {
                let parts = s.as_chunks::<WIDTH>().0.iter().zip(c.as_chunks::<WIDTH>().0);
                for (x, (s, c)) in x.iter_mut().zip(parts).rev() {
                    // SAFETY: the caller has checked the contexts.
                    let entry = unsafe { entries_of(entries, s, c) };
                    let (kept, went) = emit(*x, entry, words, at);
                    at -= 2 * went;
                    *x = put(kept, entry);
                }
            }
            store_all(x, states);
            at
        }
    };
}

pub(super) use coders;
