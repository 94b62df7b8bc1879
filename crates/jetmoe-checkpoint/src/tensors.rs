//! Mapped safetensors files, one or many shards.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;

use crate::index::WeightsIndex;
use crate::mapped_file::MappedFile;
use crate::quantized::RawTensor;
use crate::{Dtype, Error, Result, foreign, names};

/// All tensors of a checkpoint, mapped into memory.
#[derive(Debug)]
pub struct Tensors {
    folder: PathBuf,
    shards: Vec<MappedFile>,
    entries: BTreeMap<String, Entry>,
    /// Names of the tensors that hold codes, scales and zero points of other tensors.
    packed: BTreeSet<String>,
    /// Names of the tensors that were made of packed ones.
    unpacked: BTreeSet<String>,
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
    /// Maps `model.safetensors`, else every shard in `model.safetensors.index.json`; or the file of weights or index that
    /// `named` names instead.
    ///
    /// # Errors
    /// A missing or damaged file, or an index that lists a file or tensor that does not exist.
    pub(crate) fn open(folder: &Path, named: Option<&str>) -> Result<Self> {
        let (index, single) = match named {
            Some(index) if index.ends_with(".json") => (folder.join(index), PathBuf::new()),
            Some(single) => (PathBuf::new(), folder.join(single)),
            None => (folder.join(names::WEIGHTS_INDEX), folder.join(names::WEIGHTS)),
        };
        if single.is_file() {
            let (shard, entries) = map_shard(&single, 0)?;
            Ok(Self::of_shards(folder, vec![shard], entries))
        } else if index.is_file() {
            Self::open_sharded(folder, &WeightsIndex::read(&index)?)
        } else {
            Err(Error::MissingFile {
                file: named.unwrap_or(names::WEIGHTS).to_owned(),
                folder: folder.to_owned(),
                advice: foreign::advice_without_weights(folder),
            })
        }
    }

    fn of_shards(folder: &Path, shards: Vec<MappedFile>, entries: BTreeMap<String, Entry>) -> Self {
        let (packed, unpacked) = (BTreeSet::new(), BTreeSet::new());
        Tensors { folder: folder.to_owned(), shards, entries, packed, unpacked }
    }

    /// The checkpoint's folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes each tensor from the file that the index lists it in. A tensor that the index does not list is taken from the
    /// file that has it, as in transformers.
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
        for (tensor, entry) in contents.into_values().flatten() {
            entries.entry(tensor).or_insert(entry);
        }
        Ok(Self::of_shards(folder, shards, entries))
    }

    /// Renames every tensor.
    pub(crate) fn rename(&mut self, rename: impl Fn(String) -> String) {
        let entries = std::mem::take(&mut self.entries);
        self.entries = entries.into_iter().map(|(name, entry)| (rename(name), entry)).collect();
    }

    /// A tensor of any element type.
    pub(crate) fn raw_tensor(&self, name: &str) -> Option<RawTensor<'_>> {
        let entry = self.entries.get(name)?;
        let bytes = self.bytes(entry);
        Some(RawTensor { dtype: entry.dtype, shape: &entry.shape, bytes, view: self.get(name) })
    }

    /// Adds a float32 tensor that was made of the packed tensors `parts`.
    pub(crate) fn insert_unpacked(
        &mut self,
        name: &str,
        shape: &[usize],
        values: MappedFile,
        parts: impl IntoIterator<Item = String>,
    ) {
        let bytes = 0..values.len();
        let entry =
            Entry { shard: self.shards.len(), dtype: safetensors::Dtype::F32, shape: shape.to_vec(), bytes };
        self.shards.push(values);
        self.entries.insert(name.to_owned(), entry);
        self.unpacked.insert(name.to_owned());
        self.packed.extend(parts);
    }

    /// Whether a tensor holds a part of another one.
    pub(crate) fn is_packed(&self, name: &str) -> bool {
        self.packed.contains(name)
    }

    /// Whether two tensors have the same shape and the same values, whatever their element types.
    pub(crate) fn are_equal(&self, left: &str, right: &str) -> bool {
        const CHUNK: usize = 1 << 16;
        let (Some(left), Some(right)) = (self.get(left), self.get(right)) else { return false };
        if left.shape != right.shape {
            return false;
        }
        if left.dtype == right.dtype && left.bytes == right.bytes {
            return true;
        }
        // the same numbers in other bytes: another type, or zeros of both signs
        let elements = left.bytes.len() / left.dtype.size();
        (0..elements).step_by(CHUNK).all(|first| {
            let count = CHUNK.min(elements - first);
            let [left, right] = [left, right].map(|view| {
                let size = view.dtype.size();
                let mut values = vec![0.0; count];
                convert_to_f32(view.dtype, &view.bytes[first * size..(first + count) * size], &mut values);
                values
            });
            left == right
        })
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

    /// Every stored tensor with the name of its element type, its shape and its bytes, sorted by name.
    pub(crate) fn raw(&self) -> Vec<(&str, String, &[usize], &[u8])> {
        self.entries
            .iter()
            .filter(|(name, _)| !self.unpacked.contains(*name))
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

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        let entries = self.entries.iter().filter(|(name, _)| !self.packed.contains(*name));
        entries.map(|(_, entry)| entry.shape.iter().product::<usize>() as u64).sum()
    }

    /// Size of all stored tensors in bytes.
    pub fn size_in_bytes(&self) -> u64 {
        let entries = self.entries.iter().filter(|(name, _)| !self.unpacked.contains(*name));
        entries.map(|(_, entry)| entry.bytes.len() as u64).sum()
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

    /// Index and value of the first element that is infinite or NaN as float32.
    pub fn first_non_finite(&self) -> Option<(Vec<usize>, f32)> {
        let place = match self.dtype {
            Dtype::F32 => position(self.bytes, |raw| u32::from_le_bytes(raw) & 0x7F80_0000 == 0x7F80_0000),
            Dtype::F16 => position(self.bytes, |raw| u16::from_le_bytes(raw) & 0x7C00 == 0x7C00),
            Dtype::Bf16 => position(self.bytes, |raw| u16::from_le_bytes(raw) & 0x7F80 == 0x7F80),
            Dtype::F64 => position(self.bytes, |raw| !(f64::from_le_bytes(raw) as f32).is_finite()),
        }?;
        let size = self.dtype.size();
        let mut value = [0.0];
        convert_to_f32(self.dtype, &self.bytes[place * size..(place + 1) * size], &mut value);
        Some((self.index_of(place), value[0]))
    }

    /// The index of an element, given by its number in row-major order.
    fn index_of(&self, element: usize) -> Vec<usize> {
        let mut rest = element;
        let mut index: Vec<usize> = self
            .shape
            .iter()
            .rev()
            .map(|size| {
                let place = rest % size.max(&1);
                rest /= size.max(&1);
                place
            })
            .collect();
        index.reverse();
        index
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
        Dtype::F64 => convert(bytes, values, |raw| f64::from_le_bytes(raw) as f32),
    }
}

fn convert<const SIZE: usize>(bytes: &[u8], values: &mut [f32], from: impl Fn([u8; SIZE]) -> f32) {
    for (value, raw) in values.iter_mut().zip(bytes.as_chunks().0) {
        *value = from(*raw);
    }
}

/// Number of the first element that has a property. Looks at blocks first, which the compiler vectorizes.
fn position<const SIZE: usize>(bytes: &[u8], has_property: impl Fn([u8; SIZE]) -> bool) -> Option<usize> {
    const BLOCK: usize = 1 << 10;
    let elements = bytes.as_chunks::<SIZE>().0;
    elements.chunks(BLOCK).enumerate().find_map(|(block, elements)| {
        let is_found = elements.iter().fold(false, |found, element| found | has_property(*element));
        let place = if is_found { elements.iter().position(|element| has_property(*element)) } else { None };
        place.map(|place| block * BLOCK + place)
    })
}
