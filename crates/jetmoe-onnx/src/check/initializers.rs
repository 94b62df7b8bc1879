//! Constants and weights: types, sizes, and places in the data file.

use std::collections::{HashMap, HashSet};

use jetmoe_artifact::{ElementType, GraphRecord};

use super::{Checked, refuse, shown};
use crate::{DataLocation, Graph, Tensor, ValueInfo};

/// The most bytes of all constants in a graph file together. The largest in exported graphs are two tables of
/// 8 bytes for each element of the hidden size.
const MAX_CONSTANT_BYTES: u64 = 16 << 20;

/// The most elements of a tensor: so many that no size in bytes overflows.
const MAX_ELEMENTS: u64 = 1 << 56;

/// The data file of a graph.
pub(super) struct DataFile<'a> {
    /// Its name, as seen from the folder of the graph.
    location: &'a str,
    /// In bytes.
    size: u64,
}

impl<'a> DataFile<'a> {
    pub(super) fn of(record: &'a GraphRecord) -> Checked<Self> {
        let (graph, data) = (record.graph.path.as_str(), record.data.path.as_str());
        let folder = graph.rfind('/').map_or("", |end| &graph[..=end]);
        match data.strip_prefix(folder) {
            Some(location) if !location.contains('/') => Ok(DataFile { location, size: record.data.size }),
            _ => refuse(format_args!("data file {}", shown(data)), "it must be in the folder of the graph"),
        }
    }
}

/// An initializer.
#[derive(Debug)]
pub(super) struct TensorFacts {
    pub(super) element: ElementType,
    pub(super) dims: Vec<usize>,
    /// The values of an int64 constant.
    pub(super) integers: Option<Vec<i64>>,
    /// In bytes.
    pub(super) size: u64,
}

/// Checks every initializer. Returns them by name.
pub(super) fn check<'g>(graph: &'g Graph, data: &DataFile<'_>) -> Checked<HashMap<&'g str, TensorFacts>> {
    let mut tensors = HashMap::with_capacity(graph.initializer.len());
    let mut constant_bytes = 0_u64;
    let inputs: HashSet<&str> = graph.input.iter().map(ValueInfo::name).collect();
    for tensor in &graph.initializer {
        let place = || format!("tensor {}", shown(tensor.name()));
        // the default of an input, which `check_defaults` compares with the signature, has nothing along an axis of any size
        let smallest = usize::from(!inputs.contains(tensor.name()));
        let facts = check_tensor(tensor, data, smallest, &place())?;
        if tensor.data_location.is_none() {
            constant_bytes = constant_bytes.saturating_add(facts.size);
        }
        if constant_bytes > MAX_CONSTANT_BYTES {
            let problem = format!("the constants up to this one have more than {MAX_CONSTANT_BYTES} bytes");
            return refuse(place(), problem);
        }
        if tensor.name().is_empty() || tensors.insert(tensor.name(), facts).is_some() {
            return refuse(place(), "every tensor must have a name of its own");
        }
    }
    Ok(tensors)
}

fn check_tensor(tensor: &Tensor, data: &DataFile<'_>, smallest: usize, place: &str) -> Checked<TensorFacts> {
    let number = tensor.data_type.unwrap_or_default();
    let Some(element) = ElementType::from_onnx(number) else {
        return refuse(place, format_args!("its elements have type {number}, which no exported tensor has"));
    };
    let size = |size: &i64| usize::try_from(*size).ok().filter(|size| *size >= smallest);
    let Some(dims) = tensor.dims.iter().map(size).collect::<Option<Vec<usize>>>() else {
        return refuse(place, format_args!("its shape is {:?}; sizes must be positive", tensor.dims));
    };
    let count = dims.iter().try_fold(1_u64, |product, size| product.checked_mul(*size as u64));
    let Some(count) = count.filter(|count| *count <= MAX_ELEMENTS) else {
        return refuse(place, format_args!("its shape {dims:?} has too many elements"));
    };
    let size = element.bytes(count);
    let is_integer = matches!(element, ElementType::Int64 | ElementType::Int32 | ElementType::Bool);
    let integers = match tensor.data_location {
        Some(location) if location == DataLocation::External as i32 => {
            if is_integer {
                return refuse(place, format_args!("{element} must be stored in the graph file"));
            }
            check_range(tensor, (element, size), data, place)?;
            None
        }
        None => constant(tensor, (element, size), place)?,
        Some(location) => {
            return refuse(place, format_args!("its location is {location}, expected 1 or none"));
        }
    };
    Ok(TensorFacts { element, dims, integers, size })
}

/// Checks a constant in the graph file. Returns its values if they are int64.
fn constant(tensor: &Tensor, (element, size): (ElementType, u64), place: &str) -> Checked<Option<Vec<i64>>> {
    if !(element.is_float() || element == ElementType::Int64) {
        return refuse(place, format_args!("{element} must be stored in the data file"));
    }
    let bytes = tensor.raw_data.as_deref().unwrap_or_default();
    if bytes.len() as u64 != size || !tensor.external_data.is_empty() {
        let problem = format!("it has {} bytes in the graph file and should have {size}", bytes.len());
        return refuse(place, problem);
    }
    let (words, _) = bytes.as_chunks::<8>();
    let integers = || words.iter().map(|word| i64::from_le_bytes(*word)).collect();
    Ok((element == ElementType::Int64).then(integers))
}

/// Checks the place of a weight in the data file.
fn check_range(
    tensor: &Tensor,
    (element, size): (ElementType, u64),
    data: &DataFile<'_>,
    place: &str,
) -> Checked {
    let entries = tensor.external_data.iter().map(|entry| (entry.key(), entry.value()));
    let entries: Vec<(&str, &str)> = entries.collect();
    let [("location", location), ("offset", offset), ("length", length)] = entries[..] else {
        return refuse(place, "its place must be given by location, offset and length");
    };
    if location != data.location {
        let problem =
            format!("it is in the file {}, and the data file is {:?}", shown(location), data.location);
        return refuse(place, problem);
    }
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    let (Some(offset), Some(length)) = (number(offset), number(length)) else {
        let problem = format!("offset {} and length {} must be numbers", shown(offset), shown(length));
        return refuse(place, problem);
    };
    if length != size || tensor.raw_data.is_some() {
        return refuse(place, format_args!("it has {length} bytes in the data file and should have {size}"));
    }
    if offset.checked_add(length).is_none_or(|end| end > data.size) {
        let problem = format!(
            "its {length} bytes from {offset} on are not in the data file, which has {} bytes",
            data.size
        );
        return refuse(place, problem);
    }
    let alignment = element.bytes(1);
    if !offset.is_multiple_of(alignment) {
        let problem = format!("it begins at byte {offset}, which is no multiple of {alignment}");
        return refuse(place, problem);
    }
    Ok(())
}
