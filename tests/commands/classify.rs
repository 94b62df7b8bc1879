//! `jetmoe classify`.

use std::fs;
use std::io::{BufRead, BufReader, Write};

use jetmoe_testing::{CommandOutput, assert_text, assert_transcript, fixtures};
use serde_json::{Value, json};

use crate::context::{context_with_artifact, edit_config, remembered_checkpoint};

const BEGINNING: &str = "In the beginning God created the heaven and the earth.";
const JESUS: &str = "And Jesus answered and said unto his disciples, Verily I say unto you.";

#[test]
fn texts_are_arguments_or_lines() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let arguments = context.run(&format!("jetmoe classify --model artifact \"{BEGINNING}\" \"{JESUS}\""));
    let lines = context.command("jetmoe classify --model artifact");
    let lines = lines.input(&format!("{BEGINNING}\n{JESUS}\r\n")).run();
    assert_eq!(arguments.succeeded(), lines.succeeded());
    assert_transcript!(arguments, lines);
}

/// Lines that need care: blank ones, one that is too long, and one without a line break at its end.
fn difficult_lines() -> String {
    format!("{BEGINNING}\n\n \t\n{LONG}\n{JESUS}", LONG = "begat ".repeat(600))
}

#[test]
fn every_line_has_a_numbered_result_and_a_bad_one_does_not_lose_the_others() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let run = |arguments: &str| {
        let line = format!("jetmoe classify --model artifact {arguments}");
        context.command(&line).input(&difficult_lines()).run()
    };
    let table = run("");
    let shortened = [(r"(begat )+", "begat [..]")];
    assert_text!(table.transcript(), shortened);
    assert_eq!(table.status, Some(2));
    for batch_size in [1, 2, 16] {
        let output = run(&format!("--format json --batch-size {batch_size}"));
        assert_eq!(output.status, Some(2), "{output:#?}");
        let rows: Vec<Value> =
            output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let lines: Vec<u64> = rows.iter().map(|row| row["line"].as_u64().unwrap()).collect();
        assert_eq!(lines, [1, 2, 3, 4, 5]);
        let labels: Vec<Option<&str>> = rows.iter().map(|row| row["label"].as_str()).collect();
        assert_eq!(labels, [Some("Old Testament"), None, None, None, Some("New Testament")]);
        assert!(rows.iter().all(|row| row["error"].is_null() != row["label"].is_null()));
        assert_eq!(rows[2]["text"], " \t");
    }
}

#[test]
fn results_come_before_the_input_ends() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let line = "jetmoe classify --model artifact --backend tract --batch-size 2";
    let mut child = context.command(line).start_with_input();
    let mut input = child.stdin.take().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut row = || {
        let mut row = String::new();
        output.read_line(&mut row).unwrap();
        row
    };
    // each is read before the next one is written
    for (line, text) in [BEGINNING, JESUS, "", BEGINNING].iter().enumerate() {
        writeln!(input, "{text}").unwrap();
        assert!(row().starts_with(&format!("{:4}  ", line + 1)));
    }
    // more than a chunk, and the last one without a line break
    write!(input, "{}", vec![JESUS; 100].join("\n")).unwrap();
    drop(input);
    for line in 5..105 {
        assert!(row().starts_with(&format!("{line:4}  ")));
    }
    assert_eq!(row(), "");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_text_with_too_many_bytes_is_refused_before_it_is_encoded() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let line = "jetmoe classify --model artifact --format json --too-long cut --max-text-bytes 60";
    let output = context.command(line).input(&format!("{BEGINNING}\n{BEGINNING}{BEGINNING}\n")).run();
    assert_eq!(output.status, Some(2), "{output:#?}");
    let rows: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows[0]["label"], "Old Testament");
    assert_eq!(rows[1]["error"], "108 bytes, more than the 60 of --max-text-bytes");
}

#[test]
fn a_long_line_is_cut_on_request() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    for (arguments, tokens) in
        [("--too-long cut", 512), ("--max-tokens 100", 100), ("--too-long cut --max-tokens 9", 9)]
    {
        let line = format!("jetmoe classify --model artifact --format json {arguments}");
        let output = context.command(&line).input(&difficult_lines()).run();
        assert_eq!(output.status, Some(0), "{output:#?}");
        let rows: Vec<Value> =
            output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&rows[3]["tokens"], &rows[3]["truncated"]), (&json!(tokens), &json!(true)));
        assert!(output.stderr.contains(&format!("cut to {tokens} tokens: ")), "{output:#?}");
    }
}

#[test]
fn a_pair_is_two_texts_with_a_tab_between() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let output = context
        .command("jetmoe classify --model artifact --pairs --format json")
        .input(&format!("Who made it?\t{BEGINNING}\nno tab\n"))
        .run();
    assert_eq!(output.status, Some(2), "{output:#?}");
    let rows: Vec<Value> = output.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[0]["text"], &rows[0]["text_pair"]), (&json!("Who made it?"), &json!(BEGINNING)));
    assert!(rows[0]["score"].is_number(), "{rows:#?}");
    assert_eq!(rows[1]["error"], "there is no tab between the two texts");
}

#[test]
fn the_scores_of_a_regression_are_no_probabilities() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    edit_config(&context, |config| config["problem_type"] = "regression".into());
    let line = format!("jetmoe classify --model artifact \"{BEGINNING}\"");
    let [table, json] = [&line, &format!("{line} --format json")].map(|line| context.run(line));
    let row: Value = serde_json::from_str(json.succeeded()).unwrap();
    assert_eq!((&row["function"], &row["probability"]), (&json!("none"), &Value::Null));
    assert_eq!(row["scores"], row["logits"]);
    assert!(table.succeeded().contains(&format!("{:.3}", row["score"].as_f64().unwrap())), "{table:#?}");
    assert!(!table.stdout.contains('%'), "{table:#?}");
}

#[test]
fn classes_and_names_of_different_numbers_are_no_panic() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    // a gap: class 1 has no name
    edit_config(&context, |config| config["id2label"] = json!({ "0": "Old Testament", "7": "another" }));
    let output = context.run(&format!("jetmoe classify --model artifact --format json \"{JESUS}\""));
    let row: Value = serde_json::from_str(output.succeeded()).unwrap();
    assert_eq!((&row["label"], &row["label_index"]), (&json!("LABEL_1"), &json!(1)));
    // more logits than names, and fewer
    let eval = fixtures::checkpoint("jetmoe-mini-classifier").join("eval.jsonl");
    for names in [json!({ "0": "a" }), json!({ "0": "a", "1": "b", "2": "c" })] {
        edit_config(&context, |config| config["id2label"] = names);
        context.run("jetmoe classify --model artifact x").refused();
        context.run(&format!("jetmoe eval --model artifact --text {}", eval.display())).refused();
    }
}

#[test]
fn every_backend_gives_the_logits_of_transformers() {
    /// `eval.jsonl` holds them rounded.
    const ROUNDED: f64 = 1e-3;
    let context = context_with_artifact("jetmoe-mini-classifier");
    let held_out =
        fs::read_to_string(fixtures::checkpoint("jetmoe-mini-classifier").join("eval.jsonl")).unwrap();
    let held_out: Vec<Value> =
        held_out.lines().take(5).map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: String = held_out
        .iter()
        .map(|line| format!("{}\n", line["text"].as_str().unwrap().replace('\n', " ")))
        .collect();
    for backend in ["ort", "tract", "reference"] {
        let line = format!(
            "jetmoe classify --model artifact --backend {backend} --format json --batch-size 3 --max-tokens 160"
        );
        let output = context.command(&line).input(&texts).run();
        let printed = match backend {
            "reference" => output.noted(&remembered_checkpoint("jetmoe-mini-classifier")),
            _ => output.succeeded(),
        };
        let results = printed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let results: Vec<Value> = results.collect();
        assert_eq!(results.len(), held_out.len());
        for (result, expected) in results.iter().zip(&held_out) {
            assert_eq!(result["label_index"], expected["label"]);
            for (found, expected) in
                result["logits"].as_array().unwrap().iter().zip(expected["logits"].as_array().unwrap())
            {
                let error = (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs();
                assert!(error < ROUNDED, "{backend}: {found} instead of {expected}");
            }
        }
    }
}

#[test]
fn a_text_that_cannot_be_classified_is_refused() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let lines = [
        "jetmoe classify --model artifact",
        "jetmoe classify --model artifact \"\" \" \"",
        "jetmoe classify --model artifact --max-tokens 9 --too-long refuse x",
        "jetmoe classify --model artifact --batch-size 0 x",
        "jetmoe classify --model artifact --max-tokens 0 x",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}
