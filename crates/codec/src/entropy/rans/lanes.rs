//! Which lane goes where when only some of eight take part, for sets of lanes as bits.

/// For each lane of a set its rank in the set; lanes outside have that of the next one, at most 7.
pub(super) const EXPAND: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut rank) = (0, 0);
        while lane < 8 {
            table[set][lane] = if rank < 7 { rank } else { 7 };
            rank += (set >> lane & 1) as u8;
            lane += 1;
        }
        set += 1;
    }
    table
};

/// The lanes of a set, in order, at the end; lane 0 before them.
pub(super) const TO_THE_END: [[u8; 8]; 256] = {
    let mut table = [[0; 8]; 256];
    let mut set = 0;
    while set < 256 {
        let (mut lane, mut to) = (8, 8);
        while lane > 0 {
            lane -= 1;
            if set >> lane & 1 == 1 {
                to -= 1;
                table[set][to] = lane as u8;
            }
        }
        set += 1;
    }
    table
};
