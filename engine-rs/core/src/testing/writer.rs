//! Writes GGUF files, well-formed or (through the raw parts) not.

use crate::gguf::BlockType;

/// Collects metadata and tensors; `finish` lays the file out.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    values: Vec<u8>,
    value_count: u64,
    infos: Vec<u8>,
    tensor_count: u64,
    data: Vec<u8>,
}

const ALIGNMENT: usize = 32;

impl Writer {
    pub fn new(architecture: &str) -> Writer {
        let mut writer = Writer::default();
        writer.str("general.architecture", architecture);
        writer
    }

    /// A value of any kind: its type number and its bytes.
    pub fn raw(&mut self, key: &str, kind: u32, bytes: &[u8]) -> &mut Writer {
        push_string(&mut self.values, key.as_bytes());
        self.values.extend(kind.to_le_bytes());
        self.values.extend(bytes);
        self.value_count += 1;
        self
    }

    pub fn u32(&mut self, key: &str, value: u32) -> &mut Writer {
        self.raw(key, 4, &value.to_le_bytes())
    }

    pub fn f32(&mut self, key: &str, value: f32) -> &mut Writer {
        self.raw(key, 6, &value.to_le_bytes())
    }

    pub fn bool(&mut self, key: &str, value: bool) -> &mut Writer {
        self.raw(key, 7, &[u8::from(value)])
    }

    pub fn str(&mut self, key: &str, value: &str) -> &mut Writer {
        let mut bytes = Vec::new();
        push_string(&mut bytes, value.as_bytes());
        self.raw(key, 8, &bytes)
    }

    pub fn strings<S: AsRef<[u8]>>(&mut self, key: &str, values: &[S]) -> &mut Writer {
        let mut bytes = array_head(8, values.len());
        for value in values {
            push_string(&mut bytes, value.as_ref());
        }
        self.raw(key, 9, &bytes)
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Writer {
        let mut bytes = array_head(5, values.len());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.raw(key, 9, &bytes)
    }

    pub fn f32s(&mut self, key: &str, values: &[f32]) -> &mut Writer {
        let mut bytes = array_head(6, values.len());
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.raw(key, 9, &bytes)
    }

    /// A tensor, outermost dimension first, at the next aligned offset.
    pub fn tensor(&mut self, name: &str, kind: BlockType, dims: &[usize], bytes: &[u8]) -> &mut Writer {
        self.data.resize(self.data.len().next_multiple_of(ALIGNMENT), 0);
        let offset = self.data.len() as u64;
        self.data.extend(bytes);
        self.tensor_entry(name, kind.id, dims, offset)
    }

    /// Only the entry, whatever it claims.
    pub fn tensor_entry(&mut self, name: &str, kind: u32, dims: &[usize], offset: u64) -> &mut Writer {
        push_string(&mut self.infos, name.as_bytes());
        self.infos.extend((dims.len() as u32).to_le_bytes());
        for dim in dims.iter().rev() {
            self.infos.extend((*dim as u64).to_le_bytes());
        }
        self.infos.extend(kind.to_le_bytes());
        self.infos.extend(offset.to_le_bytes());
        self.tensor_count += 1;
        self
    }

    pub fn finish(&self) -> Vec<u8> {
        self.finish_as(3, self.tensor_count, self.value_count)
    }

    /// The file with this version and these counts in its header.
    pub fn finish_as(&self, version: u32, tensor_count: u64, value_count: u64) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(version.to_le_bytes());
        file.extend(tensor_count.to_le_bytes());
        file.extend(value_count.to_le_bytes());
        file.extend(&self.values);
        file.extend(&self.infos);
        file.resize(file.len().next_multiple_of(ALIGNMENT), 0);
        file.extend(&self.data);
        file
    }
}

fn push_string(to: &mut Vec<u8>, text: &[u8]) {
    to.extend((text.len() as u64).to_le_bytes());
    to.extend(text);
}

fn array_head(kind: u32, count: usize) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend((count as u64).to_le_bytes());
    bytes
}
