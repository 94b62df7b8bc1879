use jetmoe_checkpoint::names::{self, Mixture};
use jetmoe_checkpoint::{Checkpoint, Dtype, Error, TensorView, convert_to_f32};
use jetmoe_testing::DraftTensor;
use jetmoe_testing::files::truncate;
use jetmoe_testing::fixtures::golden_cases;
use proptest::prelude::*;
use safetensors::Dtype as StoredType;
use serde_json::json;

use crate::fixtures::{self, tiny};

fn open(folder: &tempfile::TempDir) -> Result<Checkpoint, Error> {
    Checkpoint::open(folder.path())
}

fn message(folder: &tempfile::TempDir) -> String {
    open(folder).unwrap_err().to_string()
}

#[test]
fn one_file_and_many_hold_the_same_tensors() {
    let draft = tiny();
    let (one, two) = (draft.write(), draft.write_sharded(|index| index % 3 == 0));
    let (one, two) = (open(&one).unwrap(), open(&two).unwrap());
    assert!(one.tensors().names().eq(draft.tensors.keys()));
    assert!(two.tensors().names().eq(draft.tensors.keys()));
    for (name, stored) in &draft.tensors {
        for checkpoint in [&one, &two] {
            let tensor = checkpoint.tensor(name, &stored.shape).unwrap();
            assert_eq!(
                (tensor.name, tensor.dtype, tensor.bytes),
                (name.as_str(), Dtype::F32, &stored.bytes()[..])
            );
        }
    }
    assert_eq!(one.tensors().size_in_bytes(), 4 * one.tensors().parameters());
}

#[test]
fn the_trained_model_and_every_golden_checkpoint_open() {
    assert_eq!(Checkpoint::open(fixtures::mini()).unwrap().tensors().parameters(), 4_597_888);
    for folder in golden_cases() {
        Checkpoint::open(&folder).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn a_folder_that_is_not_there_or_has_no_configuration_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("nowhere");
    let error = Checkpoint::open(&missing).unwrap_err().to_string();
    assert!(error.starts_with(&format!("no such folder: {}\n", missing.display())), "{error}");
    assert_eq!(
        message(&folder),
        format!(
            "config.json is missing in {}\n  a checkpoint is a folder as transformers' save_pretrained writes it",
            folder.path().display()
        )
    );
}

#[test]
fn a_folder_without_safetensors_says_what_is_needed() {
    let folder = tiny().write();
    std::fs::remove_file(folder.path().join(names::WEIGHTS)).unwrap();
    assert!(message(&folder).ends_with(
        "weights must be safetensors: model.safetensors, or shards with model.safetensors.index.json"
    ));
}

#[test]
fn a_truncated_file_is_named() {
    let folder = tiny().write_sharded(|index| index % 2 == 0);
    let shard = folder.path().join("model-00002-of-00002.safetensors");
    truncate(&shard, std::fs::metadata(&shard).unwrap().len() - 1);
    let error = message(&folder);
    assert!(
        error.starts_with(&format!("{} is not a complete safetensors file: ", shard.display())),
        "{error}"
    );
    assert!(error.ends_with("it may be truncated: download or copy it again"), "{error}");
}

#[test]
fn a_file_that_git_lfs_did_not_fetch_says_how_to_fetch_it() {
    let folder = tiny().write();
    std::fs::write(
        folder.path().join(names::WEIGHTS),
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9200984\n",
    )
    .unwrap();
    assert!(message(&folder).contains("`git lfs pull`"));
}

#[test]
fn an_index_that_names_a_missing_file_says_which_and_for_what() {
    let folder = tiny().write_sharded(|index| index == 0);
    std::fs::remove_file(folder.path().join("model-00002-of-00002.safetensors")).unwrap();
    assert_eq!(
        message(&folder),
        format!(
            "{} lists {} in model-00002-of-00002.safetensors, which does not exist\n  \
             download the missing shard into the same folder",
            folder.path().join(names::WEIGHTS_INDEX).display(),
            names::EMBEDDING
        )
    );
}

#[test]
fn an_index_may_not_lead_out_of_its_folder() {
    let elsewhere = tiny().write();
    for file in [
        elsewhere.path().join(names::WEIGHTS).to_str().unwrap(),
        "../model.safetensors",
        "sub/../../model.safetensors",
        "sub/",
        "..",
        ".",
        "",
    ] {
        let folder = tiny().write_sharded(|_| true);
        fixtures::write_json(
            &folder.path().join(names::WEIGHTS_INDEX),
            &json!({ "weight_map": { names::EMBEDDING: file } }),
        );
        let error = open(&folder).unwrap_err();
        assert!(matches!(error, Error::ShardOutside { .. }), "{error}");
        assert!(
            error.to_string().contains(&format!("in {file:?}, which is outside of its folder")),
            "{error}"
        );
    }
}

#[test]
fn an_index_that_puts_a_tensor_into_the_wrong_file_is_refused() {
    let folder = tiny().write_sharded(|index| index == 0);
    let index = folder.path().join(names::WEIGHTS_INDEX);
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("model-00002-of", "model-00001-of")).unwrap();
    let error = message(&folder);
    assert!(
        error.contains(&format!(
            "{} in model-00001-of-00002.safetensors, but that file does not",
            names::EMBEDDING
        )),
        "{error}"
    );
}

#[test]
fn a_tensor_in_two_shards_is_taken_from_the_one_that_the_index_names() {
    let draft = tiny();
    let folder = draft.write_sharded(|index| index == 0);
    let mut other = draft.clone();
    other.weight(names::FINAL_NORM).fill(0.0);
    // every tensor once more, in the file that the index names for the embedding only
    std::fs::copy(
        other.write().path().join(names::WEIGHTS),
        folder.path().join("model-00002-of-00002.safetensors"),
    )
    .unwrap();
    let checkpoint = open(&folder).unwrap();
    assert_eq!(
        checkpoint.tensors().get(names::FINAL_NORM).unwrap().bytes,
        draft.tensors[names::FINAL_NORM].bytes()
    );
}

#[test]
fn an_index_that_is_not_valid_is_named_with_the_place() {
    let folder = tiny().write_sharded(|index| index == 0);
    std::fs::write(folder.path().join(names::WEIGHTS_INDEX), "{\"weight_map\": 3}").unwrap();
    let error = message(&folder);
    assert!(
        error.contains("model.safetensors.index.json is not valid: invalid type: integer `3`"),
        "{error}"
    );
}

#[test]
fn everything_that_does_not_fit_the_configuration_is_named_at_once() {
    let missing = names::router(0, Mixture::Mlp);
    let narrow = names::kv_projection(1);
    let folder = {
        let mut draft = tiny()
            .store(&narrow, DraftTensor::counting(StoredType::F32, &[6, 16]))
            .store(names::FINAL_NORM, DraftTensor::counting(StoredType::I64, &[6]))
            .store(names::EMBEDDING, DraftTensor::counting(StoredType::I8, &[11, 6]));
        draft.tensors.remove(&missing);
        draft.write()
    };
    assert_eq!(
        message(&folder),
        format!(
            "the weights in {} do not match its config.json:\n  \
             - model.embed_tokens.weight has elements of type I8, expected float32, float16, bfloat16 or float64\n  \
             - {missing} is missing (expected [3, 6])\n  \
             - {narrow} has shape [6, 16], expected [16, 6]\n  \
             - model.norm.weight has elements of type I64, expected float32, float16, bfloat16 or float64\n  \
             both must be from the same model: download or copy them again",
            folder.path().display()
        )
    );
}

#[test]
fn a_long_list_of_problems_is_cut_with_a_count() {
    let mut draft = tiny();
    draft.tensors.retain(|name, _| name == names::EMBEDDING);
    let error = message(&draft.write());
    assert_eq!(error.lines().count(), 23);
    assert!(error.contains("\n  - … and 3 more\n"), "{error}");
}

#[test]
fn heads_are_expected_where_the_architecture_has_them() {
    let untied = tiny().with("tie_word_embeddings", json!(false));
    assert!(message(&untied.write()).contains("lm_head.weight is missing (expected [11, 6])"));
    let untied = untied.store(names::LM_HEAD, DraftTensor::counting(StoredType::BF16, &[11, 6]));
    assert_eq!(open(&untied.write()).unwrap().tensors().get(names::LM_HEAD).unwrap().dtype, Dtype::Bf16);

    let classifier = tiny()
        .with("architectures", json!(["JetMoeForSequenceClassification"]))
        .with("id2label", json!({ "0": "a", "1": "b", "2": "c" }));
    assert!(message(&classifier.write()).contains("score.weight is missing (expected [3, 6])"));
    let classifier = classifier.store(names::SCORE, DraftTensor::counting(StoredType::F32, &[3, 6]));
    assert!(open(&classifier.write()).is_ok());
}

/// As transformers' `tie_weights`.
#[test]
fn the_file_decides_whether_the_head_is_the_embedding() {
    let embedding = tiny().tensors[names::EMBEDDING].clone();
    let mut other = embedding.clone();
    other.values[65] += 0.5;
    for tied in [json!(true), json!(null)] {
        let draft = tiny().with("tie_word_embeddings", tied);
        let equal = draft.clone().store(names::LM_HEAD, embedding.clone()).write();
        assert!(open(&equal).unwrap().config().tie_word_embeddings);
        let differs = draft.clone().store(names::LM_HEAD, other.clone()).write();
        let checkpoint = open(&differs).unwrap();
        assert!(!checkpoint.config().tie_word_embeddings);
        assert_eq!(checkpoint.tensors().get(names::LM_HEAD).unwrap().to_f32(), other.values);

        let mut head_only = draft.store(names::LM_HEAD, other.clone());
        head_only.tensors.remove(names::EMBEDDING);
        let folder = head_only.write();
        let checkpoint = open(&folder).unwrap();
        assert!(checkpoint.config().tie_word_embeddings && !checkpoint.tensors().contains(names::LM_HEAD));
        assert_eq!(checkpoint.tensors().get(names::EMBEDDING).unwrap().to_f32(), other.values);
    }
    // equal numbers of another type
    let double = DraftTensor { dtype: StoredType::F64, ..embedding };
    assert!(open(&tiny().store(names::LM_HEAD, double).write()).unwrap().config().tie_word_embeddings);
    let narrow = DraftTensor::counting(StoredType::F32, &[10, 6]);
    let error = message(&tiny().store(names::LM_HEAD, narrow).write());
    assert!(error.contains("lm_head.weight has shape [10, 6], expected [11, 6]"), "{error}");
}

#[test]
fn tensors_of_a_wrapped_model_open_under_the_usual_names() {
    for prefix in ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod."] {
        let mut draft = tiny();
        draft.tensors =
            draft.tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect();
        let folder = draft.write();
        let checkpoint = open(&folder).unwrap_or_else(|error| panic!("{prefix}: {error}"));
        assert!(checkpoint.tensors().names().eq(tiny().tensors.keys()), "{prefix}");
    }
}

#[test]
fn quantized_weights_are_named_with_their_method() {
    for (value, method) in [
        (json!({ "quant_method": "bitsandbytes", "load_in_4bit": true }), "bitsandbytes, 4 bits"),
        (json!({ "quant_method": "bitsandbytes", "load_in_8bit": true }), "bitsandbytes, 8 bits"),
        (json!({ "quant_method": "gptq", "bits": 8, "group_size": 128 }), "gptq, 8 bits"),
        (json!({ "quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": true }), "gptq, 4 bits"),
        (json!({ "quant_method": "gptq", "bits": 4, "group_size": -1 }), "gptq, 4 bits"),
        (json!({ "quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemv" }), "awq, 4 bits"),
        (json!({ "quant_method": "fp8" }), "fp8"),
        (
            json!({ "quant_method": "compressed-tensors", "format": "pack-quantized" }),
            "compressed-tensors, pack-quantized",
        ),
        (json!({}), "an unnamed method"),
    ] {
        let error = message(&tiny().with("quantization_config", value).write());
        assert!(
            error.contains(&format!(
                "config.json holds quantized weights ({method}), as its quantization_config says"
            )),
            "{error}"
        );
        assert_eq!(error.lines().count(), 2);
    }
    assert!(open(&tiny().with("quantization_config", json!(null)).write()).is_ok());
    let projection = names::kv_projection(0).replace("weight", "qweight");
    let error = message(&tiny().store(&projection, DraftTensor::counting(StoredType::I64, &[2, 2])).write());
    assert!(error.contains("(gptq or awq)") && error.contains(&projection), "{error}");
}

#[test]
fn an_adapter_is_named_with_its_model() {
    let folder = tempfile::tempdir().unwrap();
    fixtures::write_json(
        &folder.path().join(names::ADAPTER_CONFIG),
        &json!({ "peft_type": "LORA", "base_model_name_or_path": "jetmoe/jetmoe-8b" }),
    );
    let error = message(&folder);
    assert!(
        error.contains("adapter_config.json says that this is an adapter (LORA) for jetmoe/jetmoe-8b"),
        "{error}"
    );
    assert!(error.contains("merge_and_unload()"), "{error}");
    let lora = "model.layers.0.self_attention.kv_proj.lora_A.default.weight";
    let error = message(&tiny().store(lora, DraftTensor::counting(StoredType::F32, &[2, 6])).write());
    assert!(error.contains(&format!("an adapter beside the weights, in {lora}")), "{error}");
}

#[test]
fn weights_in_another_format_are_named() {
    let folder = tiny().write();
    let weights = folder.path().join(names::WEIGHTS);
    std::fs::rename(&weights, folder.path().join("pytorch_model.bin")).unwrap();
    std::fs::write(folder.path().join("training_args.bin"), "").unwrap();
    let error = message(&folder);
    assert!(error.contains("pytorch_model.bin is a pickle: load it in transformers"), "{error}");
}

#[test]
fn a_base_model_saved_without_prefix_opens_under_the_usual_names() {
    let mut draft = tiny().with("architectures", json!(["JetMoeModel"]));
    draft.tensors =
        draft.tensors.into_iter().map(|(name, tensor)| (name.replacen("model.", "", 1), tensor)).collect();
    assert!(draft.tensors.contains_key("embed_tokens.weight"));
    let checkpoint_folder = draft.write();
    let checkpoint = open(&checkpoint_folder).unwrap();
    assert!(checkpoint.tensors().names().eq(tiny().tensors.keys()));
    assert!(open(&draft.write_sharded(|index| index % 2 == 0)).is_ok());
}

#[test]
fn asking_for_a_tensor_of_another_shape_is_an_error() {
    let folder = tiny().write();
    let checkpoint = open(&folder).unwrap();
    let error = checkpoint.tensor(names::FINAL_NORM, &[7]).unwrap_err().to_string();
    assert!(error.contains("model.norm.weight has shape [6], expected [7]"), "{error}");
    let error = checkpoint.tensor("no.such", &[7]).unwrap_err().to_string();
    assert!(error.contains("no.such is missing (expected [7])"), "{error}");
}

#[test]
fn absurd_sizes_in_a_valid_configuration_only_miss_the_weights() {
    let folder = tiny().with("hidden_size", json!(i32::MAX)).with("num_hidden_layers", json!(10_000)).write();
    assert!(message(&folder).contains("\n  - … and "));
}

#[test]
fn every_element_type_converts_to_float32() {
    for (stored, dtype, size) in [
        (StoredType::F32, Dtype::F32, 4),
        (StoredType::F16, Dtype::F16, 2),
        (StoredType::BF16, Dtype::Bf16, 2),
        (StoredType::F64, Dtype::F64, 8),
    ] {
        let folder = tiny().store(names::FINAL_NORM, DraftTensor::counting(stored, &[6])).write();
        let checkpoint = open(&folder).unwrap();
        let tensor = checkpoint.tensors().get(names::FINAL_NORM).unwrap();
        assert_eq!((tensor.dtype, tensor.dtype.size()), (dtype, size));
        assert_eq!(tensor.to_f32(), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    }
}

#[test]
fn the_first_dimension_can_be_cut_into_its_parts() {
    let folder = tiny().write();
    let checkpoint = open(&folder).unwrap();
    let name = names::expert_input(0, Mixture::Mlp);
    let tensor = checkpoint.tensor(&name, &[3, 10, 6]).unwrap();
    let parts: Vec<_> = (0..3).map(|expert| tensor.slice_first(expert).unwrap()).collect();
    assert!(parts.iter().all(|part| part.shape == [10, 6]));
    assert_eq!(parts.iter().flat_map(TensorView::to_f32).collect::<Vec<_>>(), tensor.to_f32());
    assert!(tensor.slice_first(3).is_none());
    assert!(tensor.slice_first(usize::MAX).is_none());
}

proptest! {
    #[test]
    fn a_file_cut_anywhere_is_refused_by_name(length in 0_u64..20_000) {
        let folder = tiny().write();
        let file = folder.path().join(names::WEIGHTS);
        let whole = std::fs::metadata(&file).unwrap().len();
        truncate(&file, length % whole);
        let error = open(&folder).unwrap_err();
        prop_assert!(matches!(&error, Error::Safetensors { path, .. } if *path == file), "{}", error);
    }

    #[test]
    fn a_damaged_header_is_refused_or_read_but_never_worse(position in 0_usize..3000, byte: u8) {
        let folder = tiny().write();
        let file = folder.path().join(names::WEIGHTS);
        let mut bytes = std::fs::read(&file).unwrap();
        let position = position % bytes.len();
        bytes[position] = byte;
        std::fs::write(&file, bytes).unwrap();
        if let Ok(checkpoint) = open(&folder) {
            for name in checkpoint.tensors().names() {
                prop_assert!(checkpoint.tensors().get(name).is_some());
            }
        }
    }

    #[test]
    fn half_precision_converts_as_the_half_crate_does(bits in prop::collection::vec(any::<u16>(), 0..64)) {
        let bytes: Vec<u8> = bits.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        let mut values = vec![0.0; bits.len()];
        convert_to_f32(Dtype::F16, &bytes, &mut values);
        for (value, bits) in values.iter().zip(&bits) {
            prop_assert_eq!(value.to_bits(), half::f16::from_bits(*bits).to_f32().to_bits());
        }
        convert_to_f32(Dtype::Bf16, &bytes, &mut values);
        for (value, bits) in values.iter().zip(&bits) {
            prop_assert_eq!(value.is_nan(), half::bf16::from_bits(*bits).is_nan());
            if !value.is_nan() {
                prop_assert_eq!(value.to_bits(), u32::from(*bits) << 16);
            }
        }
    }
}
