//! Mapped safetensors files, one or many shards.

use std::collections::{BTreeMap, btree_map};
use std::ops::Range;
use std::path::Path;

use safetensors::SafeTensors;

use crate::index::WeightsIndex;
use crate::mapped_file::MappedFile;
use crate::{Dtype, Error, Result, names};

/// All tensors of a checkpoint, mapped into memory.
#[derive(Debug)]
pub struct Tensors {
    shards: Vec<MappedFile>,
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    shard: usize,
    dtype: safetensors::Dtype,
    shape: Vec<usize>,
    bytes: Range<usize>,
}

/// One tensor: its shape, and its bytes in the mapped file, little-endian and row-major.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Name in the checkpoint.
    pub name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes of the dimensions.
    pub shape: &'a [usize],
    /// `shape.product() * dtype.size()` bytes.
    pub bytes: &'a [u8],
}

impl Tensors {
    /// Maps `model.safetensors`, else every shard in `model.safetensors.index.json`.
    ///
    /// # Errors
    /// A missing or damaged file, or an index that lists a file or tensor that does not exist.
    pub fn open(folder: &Path) -> Result<Self> {
        let index = folder.join(names::WEIGHTS_INDEX);
        let single = folder.join(names::WEIGHTS);
        if single.is_file() {
            let (shard, entries) = map_shard(&single, 0)?;
            Ok(Tensors { shards: vec![shard], entries })
        } else if index.is_file() {
            Self::open_sharded(folder, &WeightsIndex::read(&index)?)
        } else {
            Err(Error::MissingFile {
                file: names::WEIGHTS.to_owned(),
                folder: folder.to_owned(),
                advice: format!(
                    "weights must be safetensors: {}, or shards with {}",
                    names::WEIGHTS,
                    names::WEIGHTS_INDEX
                ),
            })
        }
    }

    /// Takes each tensor from the file that the index lists it in.
    fn open_sharded(folder: &Path, index: &WeightsIndex) -> Result<Self> {
        let mut shards = Vec::new();
        let mut contents: BTreeMap<&str, BTreeMap<String, Entry>> = BTreeMap::new();
        let mut entries = BTreeMap::new();
        for (tensor, file) in index.tensors() {
            let unclaimed = match contents.entry(file) {
                btree_map::Entry::Occupied(entry) => entry.into_mut(),
                btree_map::Entry::Vacant(entry) => {
                    let path = folder.join(file);
                    if !path.is_file() {
                        return Err(Error::MissingShard {
                            index: index.path().to_owned(),
                            tensor: tensor.to_owned(),
                            file: file.to_owned(),
                        });
                    }
                    let (shard, tensors) = map_shard(&path, shards.len())?;
                    shards.push(shard);
                    entry.insert(tensors)
                }
            };
            let entry = unclaimed.remove(tensor).ok_or_else(|| Error::MisplacedTensor {
                index: index.path().to_owned(),
                tensor: tensor.to_owned(),
                file: file.to_owned(),
            })?;
            entries.insert(tensor.to_owned(), entry);
        }
        Ok(Tensors { shards, entries })
    }

    /// Renames every tensor.
    pub(crate) fn rename(&mut self, rename: impl Fn(String) -> String) {
        let entries = std::mem::take(&mut self.entries);
        self.entries = entries.into_iter().map(|(name, entry)| (rename(name), entry)).collect();
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Whether a tensor of that name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The tensor of that name; `None` if it is missing or its element type is not a [`Dtype`].
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        let (name, entry) = self.entries.get_key_value(name)?;
        let dtype = Dtype::from_safetensors(entry.dtype)?;
        Some(TensorView { name, dtype, shape: &entry.shape, bytes: self.bytes(entry) })
    }

    /// Every tensor with the name of its element type, its shape and its bytes, sorted by name.
    pub(crate) fn raw(&self) -> Vec<(&str, String, &[usize], &[u8])> {
        self.entries
            .iter()
            .map(|(name, entry)| {
                (name.as_str(), format!("{:?}", entry.dtype), entry.shape.as_slice(), self.bytes(entry))
            })
            .collect()
    }

    /// Shape and element type of a tensor; the type's name, and its [`Dtype`] if it is one.
    pub(crate) fn describe(&self, name: &str) -> Option<(&[usize], String, Option<Dtype>)> {
        let entry = self.entries.get(name)?;
        Some((&entry.shape, format!("{:?}", entry.dtype), Dtype::from_safetensors(entry.dtype)))
    }

    /// Number of elements of all tensors.
    pub fn parameters(&self) -> u64 {
        self.entries.values().map(|entry| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// Size of all tensors in bytes.
    pub fn size_in_bytes(&self) -> u64 {
        self.entries.values().map(|entry| entry.bytes.len() as u64).sum()
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.shards[entry.shard][entry.bytes.clone()]
    }
}

/// Maps one safetensors file as shard number `shard` and reads its header.
fn map_shard(path: &Path, shard: usize) -> Result<(MappedFile, BTreeMap<String, Entry>)> {
    let map = MappedFile::open(path)?;
    // this checks that every tensor is inside the file and has the length of its shape and type
    let (header, contents) = SafeTensors::read_metadata(&map).map_err(|source| {
        let path = path.to_owned();
        match map.starts_with(b"version https://git-lfs") {
            true => Error::LfsPointer { path },
            false => Error::Safetensors { path, source },
        }
    })?;
    let data = size_of::<u64>() + header;
    let entries = contents
        .tensors()
        .into_iter()
        .map(|(name, tensor)| {
            let (start, end) = tensor.data_offsets;
            let bytes = data + start..data + end;
            (name, Entry { shard, dtype: tensor.dtype, shape: tensor.shape.clone(), bytes })
        })
        .collect();
    Ok((map, entries))
}

impl<'a> TensorView<'a> {
    /// The elements as float32, in row-major order.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.bytes.len() / self.dtype.size()];
        convert_to_f32(self.dtype, self.bytes, &mut values);
        values
    }

    /// The sub-tensor at `index` of the first dimension; `None` beyond its end or for a scalar.
    pub fn slice_first(&self, index: usize) -> Option<TensorView<'a>> {
        let (first, shape) = self.shape.split_first()?;
        if index >= *first {
            return None;
        }
        let length = self.bytes.len() / first;
        let bytes = self.bytes.get(index * length..(index + 1) * length)?;
        Some(TensorView { name: self.name, dtype: self.dtype, shape, bytes })
    }
}

/// Converts little-endian elements of `dtype` to float32.
///
/// # Panics
/// If `bytes` does not hold exactly one element for each of `values`.
pub fn convert_to_f32(dtype: Dtype, bytes: &[u8], values: &mut [f32]) {
    assert_eq!(bytes.len(), values.len() * dtype.size(), "one stored element per value");
    match dtype {
        Dtype::F32 => convert(bytes, values, f32::from_le_bytes),
        Dtype::F16 => convert(bytes, values, |raw| half::f16::from_le_bytes(raw).to_f32()),
        Dtype::Bf16 => convert(bytes, values, |raw| half::bf16::from_le_bytes(raw).to_f32()),
    }
}

fn convert<const SIZE: usize>(bytes: &[u8], values: &mut [f32], from: impl Fn([u8; SIZE]) -> f32) {
    for (value, raw) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = from(*raw);
    }
}
