//! The tensor types ("block types") of ggml by their number in a file. Only names and sizes live here; how a block is
//! decoded is in `dequantize`.

/// A ggml tensor type: a row is a run of blocks, each `bytes` long and holding `elements` values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockType {
    pub id: u32,
    pub name: &'static str,
    pub elements: usize,
    pub bytes: usize,
}

const fn block(id: u32, name: &'static str, elements: usize, bytes: usize) -> BlockType {
    BlockType { id, name, elements, bytes }
}

impl BlockType {
    pub const F32: BlockType = block(0, "F32", 1, 4);
    pub const F16: BlockType = block(1, "F16", 1, 2);
    pub const Q4_0: BlockType = block(2, "Q4_0", 32, 18);
    pub const Q4_1: BlockType = block(3, "Q4_1", 32, 20);
    pub const Q5_0: BlockType = block(6, "Q5_0", 32, 22);
    pub const Q5_1: BlockType = block(7, "Q5_1", 32, 24);
    pub const Q8_0: BlockType = block(8, "Q8_0", 32, 34);
    pub const Q2_K: BlockType = block(10, "Q2_K", 256, 84);
    pub const Q3_K: BlockType = block(11, "Q3_K", 256, 110);
    pub const Q4_K: BlockType = block(12, "Q4_K", 256, 144);
    pub const Q5_K: BlockType = block(13, "Q5_K", 256, 176);
    pub const Q6_K: BlockType = block(14, "Q6_K", 256, 210);
    pub const BF16: BlockType = block(30, "BF16", 1, 2);

    /// Every type ggml has given a number and still stores.
    pub const ALL: [BlockType; 34] = [
        Self::F32,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        block(9, "Q8_1", 32, 36),
        Self::Q2_K,
        Self::Q3_K,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        block(15, "Q8_K", 256, 292),
        block(16, "IQ2_XXS", 256, 66),
        block(17, "IQ2_XS", 256, 74),
        block(18, "IQ3_XXS", 256, 98),
        block(19, "IQ1_S", 256, 50),
        block(20, "IQ4_NL", 32, 18),
        block(21, "IQ3_S", 256, 110),
        block(22, "IQ2_S", 256, 82),
        block(23, "IQ4_XS", 256, 136),
        block(24, "I8", 1, 1),
        block(25, "I16", 1, 2),
        block(26, "I32", 1, 4),
        block(27, "I64", 1, 8),
        block(28, "F64", 1, 8),
        block(29, "IQ1_M", 256, 56),
        Self::BF16,
        block(34, "TQ1_0", 256, 54),
        block(35, "TQ2_0", 256, 66),
        block(39, "MXFP4", 32, 17),
        block(40, "NVFP4", 64, 36),
        block(41, "Q1_0", 128, 18),
    ];

    /// Numbers that ggml once used; their layouts are gone, so a file with one can only be named, not read.
    const RETIRED: [(u32, &'static str); 8] = [
        (4, "Q4_2"),
        (5, "Q4_3"),
        (31, "Q4_0_4_4"),
        (32, "Q4_0_4_8"),
        (33, "Q4_0_8_8"),
        (36, "IQ4_NL_4_4"),
        (37, "IQ4_NL_4_8"),
        (38, "IQ4_NL_8_8"),
    ];

    pub fn from_id(id: u32) -> Option<BlockType> {
        Self::ALL.into_iter().find(|kind| kind.id == id)
    }

    /// A name for any number, for messages.
    pub fn name_of(id: u32) -> String {
        let retired = Self::RETIRED.iter().find(|(number, _)| *number == id);
        match (Self::from_id(id), retired) {
            (Some(kind), _) => kind.name.to_owned(),
            (None, Some((_, name))) => format!("{name} (retired by ggml)"),
            (None, None) => format!("number {id} (unknown)"),
        }
    }

    /// Bytes of `elements` values, or `None` where they are not whole blocks or do not fit in memory.
    pub fn bytes_for(&self, elements: usize) -> Option<usize> {
        elements.is_multiple_of(self.elements).then(|| (elements / self.elements).checked_mul(self.bytes))?
    }
}

impl std::fmt::Display for BlockType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unique() {
        let mut ids: Vec<u32> = BlockType::ALL.iter().map(|kind| kind.id).collect();
        ids.extend(BlockType::RETIRED.iter().map(|(id, _)| *id));
        ids.sort_unstable();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn sizes_need_whole_blocks() {
        let cases = [
            (BlockType::Q8_0, 64, Some(68)),
            (BlockType::Q8_0, 33, None),
            (BlockType::F32, usize::MAX, None),
            (BlockType::Q4_K, 512, Some(288)),
        ];
        for (kind, elements, bytes) in cases {
            assert_eq!(kind.bytes_for(elements), bytes, "{kind} {elements}");
        }
    }

    #[test]
    fn every_number_has_a_name() {
        for (id, name) in [(12, "Q4_K"), (4, "Q4_2 (retired by ggml)"), (99, "number 99 (unknown)")] {
            assert_eq!(BlockType::name_of(id), name);
        }
    }
}
