//! `jetmoe run`.

use std::fs;

use jetmoe_testing::files::edit_json;
use jetmoe_testing::{CommandOutput, TestContext, assert_text, assert_transcript, fixtures};
use serde_json::{Value, json};

use crate::context::{context_with_artifact, export_checkpoint, new_context};

/// What transformers continues the first prompt of the fixtures with, `In the beginning`, and its tokens.
fn expected() -> (String, Vec<u64>) {
    let file = fs::read_to_string(fixtures::checkpoint("jetmoe-mini").join("expected.json")).unwrap();
    let expected: Value = serde_json::from_str(&file).unwrap();
    let greedy = &expected["greedy"][0];
    assert_eq!(greedy["prompt"], "In the beginning");
    let ids = greedy["generated_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    (greedy["text"].as_str().unwrap().to_owned(), ids)
}

#[test]
fn a_piped_prompt_is_continued() {
    let context = context_with_artifact("jetmoe-mini");
    let line = context.command("jetmoe run --model artifact --max-new-tokens 24");
    let output = line.input("The stock market rallied today\n").run();
    output.succeeded();
    assert_transcript!(output);
}

#[test]
fn every_backend_continues_as_transformers_does() {
    let context = context_with_artifact("jetmoe-mini");
    let (text, _) = expected();
    for model in ["artifact", "jetmoe-mini"] {
        for backend in ["ort", "tract", "reference"] {
            let options = format!("--model {model} --backend {backend} --max-new-tokens 16");
            let output = context.run(&format!("jetmoe run {options} --prompt \"In the beginning\" --echo"));
            let found = output.stdout.strip_suffix('\n').unwrap();
            assert!(text.starts_with(found) && found.ends_with("to the king of"), "{output:#?}");
        }
    }
}

#[test]
fn a_checkpoint_runs_in_the_reference_with_a_remark_beside_the_result() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    let output = context.run("jetmoe run --model jetmoe-mini --max-new-tokens 8 --prompt \"And God said\"");
    assert_eq!(output.status, Some(0));
    assert!(output.stderr.contains("for speed, export it: jetmoe-export jetmoe-mini --output DIR"));
    assert_transcript!(output);
}

#[test]
fn pieces_add_up_to_the_whole() {
    let context = context_with_artifact("jetmoe-mini");
    let line = "jetmoe run --model artifact --max-new-tokens 12 --prompt \"And God said\"";
    for more in ["", " --echo", " --stop \" the\"", " --chat --echo"] {
        let whole = context.run(&format!("{line}{more}"));
        let pieces = context.run(&format!("{line}{more} --stream"));
        assert_eq!(pieces.succeeded(), whole.succeeded(), "{more}");
    }
}

#[test]
fn a_stop_string_ends_the_text_and_is_not_part_of_it() {
    let context = context_with_artifact("jetmoe-mini");
    let line = "jetmoe run --model artifact --max-new-tokens 30 --prompt \"In the beginning\"";
    let output = context.run(&format!("{line} --stop nothing --stop Hezekiah"));
    assert_eq!(output.succeeded(), " of the reign of king \n");
}

#[test]
fn a_conversation_is_rendered_by_the_chat_template() {
    let context = context_with_artifact("jetmoe-mini");
    let output = context.run(
        "jetmoe run --model artifact --chat --system \"Be brief.\" --prompt \"Who made the heaven?\" --echo \
         --max-new-tokens 12",
    );
    output.succeeded();
    assert_transcript!(output);
}

#[test]
fn a_conversation_gets_no_special_token_but_those_of_its_template() {
    let context = context_with_artifact("jetmoe-mini");
    let tokenizer = jetmoe::text::Tokenizer::open(&context.path("artifact")).unwrap().unwrap();
    let output =
        context.run("jetmoe run --model artifact --chat --prompt \"Who?\" --format json --max-new-tokens 1");
    let report: Value = serde_json::from_str(output.succeeded()).unwrap();
    let prompt = report["prompt"].as_str().unwrap();
    assert_eq!(prompt, "<|user|>\nWho?</s>\n<|assistant|>\n");
    assert_eq!(report["prompt_tokens"], tokenizer.encode(prompt, false).unwrap().len());
}

#[test]
fn a_model_without_a_chat_template_takes_no_conversation() {
    let context = new_context();
    let checkpoint = context.copy("jetmoe-mini", "checkpoint");
    fs::remove_file(checkpoint.join("chat_template.jinja")).unwrap();
    let output = context.run("jetmoe run --model checkpoint --backend reference --chat --prompt \"Who?\"");
    assert!(output.refused().contains("put chat_template.jinja into the checkpoint"));
    assert_transcript!(output);
}

#[test]
fn a_seed_makes_sampling_repeatable() {
    let context = context_with_artifact("jetmoe-mini");
    let sampled = |options: &str| {
        let line = "jetmoe run --model artifact --max-new-tokens 16 --prompt \"In the beginning\"";
        context.run(&format!("{line} {options}")).succeeded().to_owned()
    };
    let first = sampled("--temperature 0.9 --top-k 40 --top-p 0.95 --min-p 0.01 --seed 7");
    assert_eq!(sampled("--temperature 0.9 --top-k 40 --top-p 0.95 --min-p 0.01 --seed 7"), first);
    assert_ne!(sampled("--temperature 0.9 --top-k 40 --top-p 0.95 --min-p 0.01 --seed 8"), first);
    let greedy = sampled("");
    assert_eq!(sampled("--top-k 1 --seed 7"), greedy);
    assert_eq!(sampled("--temperature 0"), greedy);
    assert_ne!(sampled("--repetition-penalty 1.8"), greedy);
}

#[test]
fn json_holds_the_tokens() {
    let context = context_with_artifact("jetmoe-mini");
    let (text, ids) = expected();
    let line = "jetmoe run --model artifact --max-new-tokens 48 --prompt \"In the beginning\" --format json";
    let report: Value = serde_json::from_str(context.run(line).succeeded()).unwrap();
    assert_eq!(report["token_ids"], json!(ids));
    assert_eq!(format!("In the beginning{}", report["text"].as_str().unwrap()), text);
    assert_eq!(report["finish_reason"], "max-new-tokens");
    assert_eq!(report["prompt_tokens"], 6);
}

#[test]
fn drafts_and_chunks_leave_the_text_as_it_is() {
    let context = context_with_artifact("jetmoe-mini");
    let line = "jetmoe run --model artifact --max-new-tokens 48 --prompt \"In the beginning\" --format json";
    let json = |more: &str| -> Value {
        serde_json::from_str(context.run(&format!("{line} {more}")).succeeded()).unwrap()
    };
    let plain = json("");
    assert_eq!((&plain["drafted_tokens"], &plain["accepted_tokens"]), (&json!(0), &json!(0)));
    assert_eq!(json("--speculate 0"), plain);
    assert_eq!(json("--prefill-chunk 2"), plain);
    let drafted = json("--speculate 5 --ngram-tokens 1");
    assert!(drafted["drafted_tokens"].as_u64() > Some(0), "{drafted}");
    assert_eq!((&drafted["text"], &drafted["token_ids"]), (&plain["text"], &plain["token_ids"]));
}

#[test]
fn an_empty_prompt_is_refused() {
    let context = context_with_artifact("jetmoe-mini");
    let given = context.run("jetmoe run --model artifact --prompt \"\"");
    let piped = context.command("jetmoe run --model artifact").input("\n").run();
    let nothing = context.run("jetmoe run --model artifact");
    let chat = context.run("jetmoe run --model artifact --chat --prompt \"\"");
    for output in [&given, &piped, &nothing, &chat] {
        assert!(output.refused().contains("give a text with --prompt or on standard input"));
    }
    assert_transcript!(given, piped, nothing, chat);
}

#[test]
fn a_prompt_longer_than_the_positions_is_refused_and_nothing_printed() {
    let context = context_with_artifact("jetmoe-mini");
    let prompt = "begat ".repeat(600);
    for line in [
        "jetmoe run --model artifact",
        "jetmoe run --model artifact --echo",
        "jetmoe run --model artifact --stream --echo",
    ] {
        let output = context.command(line).input(&prompt).run();
        let message = output.refused();
        assert!(message.contains("tokens, more than the 512 positions of the model"), "{message}");
        assert!(message.contains("shorten the text"), "{message}");
    }
}

#[test]
fn a_continuation_ends_where_the_positions_end() {
    let context = new_context();
    let checkpoint = context.copy("jetmoe-mini", "checkpoint");
    edit_json(&checkpoint.join("config.json"), |config| config["max_position_embeddings"] = json!(16));
    export_checkpoint(&context.path("checkpoint"), &context.path("artifact"), None, &[]);
    let output = context.run("jetmoe run --model artifact --prompt \"In the beginning\"");
    assert_eq!(output.status, Some(0));
    assert_transcript!(output);
}

#[test]
fn values_that_make_no_sense_are_refused_by_the_name_of_their_flag() {
    let context = new_context();
    // refused before anything is opened
    let lines = [
        "--temperature -1",
        "--temperature inf",
        "--top-p 1.5",
        "--top-p -0.1",
        "--min-p 3",
        "--typical-p 0",
        "--presence-penalty inf",
        "--no-repeat-ngram-size -1",
        "--suppress the",
        "--chat --template-variable thinking",
        "--top-k -1",
        "--repetition-penalty 0",
        "--max-new-tokens 0",
        "--seed -1",
        "--prefill-chunk 0",
        "--speculate -1",
        "--speculate 4 --ngram-tokens 0",
        "--ngram-tokens 2",
        "--seed now",
        "--stop \"\"",
        "--threads 0",
        "--backend cuda",
        "--format yaml",
        "--system x",
        "--stream --format json",
        "--frobnicate",
    ];
    let outputs: Vec<_> = lines
        .iter()
        .map(|line| context.run(&format!("jetmoe run --model artifact --prompt x {line}")))
        .collect();
    for (line, output) in lines.iter().zip(&outputs) {
        let flag = line.rsplit(' ').find(|word| word.starts_with("--")).unwrap();
        assert!(output.refused().contains(flag), "{output:#?}");
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn a_setting_of_the_checkpoint_that_cannot_be_followed_is_named_with_its_key() {
    let context = new_context();
    let checkpoint = context.copy("jetmoe-mini", "checkpoint");
    edit_json(&checkpoint.join("generation_config.json"), |config| {
        config["do_sample"] = json!(true);
        config["temperature"] = json!(0.0);
        config["top_k"] = json!("many");
    });
    let output = context.run("jetmoe run --model checkpoint --prompt x");
    assert!(output.refused().contains("generation_config.json"));
    assert_transcript!(output);
}

/// A checkpoint and its artifact, with settings added to `generation_config.json`.
fn with_settings(settings: &Value) -> TestContext {
    let context = new_context();
    let checkpoint = context.copy("jetmoe-mini", "checkpoint");
    edit_json(&checkpoint.join("generation_config.json"), |config| {
        for (key, value) in settings.as_object().unwrap() {
            config[key] = value.clone();
        }
    });
    export_checkpoint(&context.path("checkpoint"), &context.path("artifact"), None, &[]);
    context
}

#[test]
fn an_option_overrides_one_setting_and_keeps_the_others() {
    // not sampled without an option, and then with these values
    let context =
        with_settings(&json!({ "temperature": 3.0, "top_p": 0.9, "top_k": 7, "repetition_penalty": 1.5 }));
    let plain = context_with_artifact("jetmoe-mini");
    let line = "jetmoe run --model artifact --max-new-tokens 16 --prompt \"In the beginning\" --seed 3";
    let sampled = context.run(&format!("{line} --top-k 5"));
    let all = "--temperature 3 --top-p 0.9 --repetition-penalty 1.5 --top-k 5";
    assert_eq!(sampled.succeeded(), plain.run(&format!("{line} {all}")).succeeded());
    assert_ne!(sampled.stdout, plain.run(&format!("{line} --top-k 5")).succeeded());
    assert_eq!(
        context.run(line).succeeded(),
        plain.run(&format!("{line} --repetition-penalty 1.5")).succeeded()
    );
}

#[test]
fn settings_that_are_not_applied_are_named_once() {
    let context =
        with_settings(&json!({ "num_beams": 4, "guidance_scale": 1.5, "length_penalty": 2.0, "odd_key": 1 }));
    let output = context.run("jetmoe run --model artifact --prompt \"And God said\" --max-new-tokens 4");
    assert_eq!(output.status, Some(0));
    assert_transcript!(output);
}

#[test]
fn rules_and_lengths_of_the_checkpoint_and_of_the_command_line_are_followed() {
    let context =
        with_settings(&json!({ "suppress_tokens": [262], "stop_strings": [" king"], "max_new_tokens": 9 }));
    let tokens = |options: &str| -> (Vec<u64>, String) {
        let line = "jetmoe run --model artifact --prompt \"In the beginning\" --format json";
        let report: Value =
            serde_json::from_str(context.run(&format!("{line} {options}")).succeeded()).unwrap();
        let ids = report["token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap());
        (ids.collect(), report["finish_reason"].as_str().unwrap().to_owned())
    };
    let (_, greedy) = expected();
    let suppressed = u32::try_from(greedy[1]).unwrap();
    let (ids, _) = tokens(&format!("--suppress {suppressed} --stop nothing"));
    assert!(ids.len() == 9 && !ids.contains(&u64::from(suppressed)), "{ids:?}");
    let (ids, reason) = tokens("--no-repeat-ngram-size 1 --max-new-tokens 40 --stop nothing");
    let unique: std::collections::BTreeSet<u64> = ids.iter().copied().collect();
    assert!(unique.len() == ids.len() && (reason == "end-token" || ids.len() == 40), "{ids:?}");
    assert_ne!(
        tokens("--frequency-penalty 1.5 --max-new-tokens 24 --stop nothing").0,
        tokens("--max-new-tokens 24 --stop nothing").0
    );
    assert_eq!(tokens("--suppress 0").1, "stop-string");
}

#[test]
fn a_piped_prompt_loses_one_line_break() {
    let context = context_with_artifact("jetmoe-mini");
    for (typed, prompt) in [
        ("Hear\n", "Hear"),
        ("Hear\r\n", "Hear"),
        ("Hear\n\n", "Hear\n"),
        ("Hear \r", "Hear \r"),
        ("\nHear", "\nHear"),
    ] {
        let output = context
            .command("jetmoe run --model artifact --format json --max-new-tokens 1")
            .input(typed)
            .run();
        let report: Value = serde_json::from_str(output.succeeded()).unwrap();
        assert_eq!(report["prompt"], prompt);
        let tokenizer = jetmoe::text::Tokenizer::open(&context.path("artifact")).unwrap().unwrap();
        assert_eq!(report["prompt_token_ids"], json!(tokenizer.encode(prompt, true).unwrap()));
    }
}

#[test]
fn a_template_is_selected_and_gets_variables() {
    let context = new_context();
    let checkpoint = context.copy("jetmoe-mini", "checkpoint");
    fs::remove_file(checkpoint.join("chat_template.jinja")).unwrap();
    edit_json(&checkpoint.join("tokenizer_config.json"), |config| {
        config["chat_template"] = json!([
            { "name": "plain", "template": "{{ messages[0].content }}" },
            { "name": "greeting", "template": "{{ greeting }}{% if loud %}!{% endif %} {{ messages[0].content }}{{ n + 1 }}" },
        ]);
    });
    export_checkpoint(&context.path("checkpoint"), &context.path("artifact"), None, &[]);
    let line = "jetmoe run --model artifact --chat --prompt Jacob --max-new-tokens 1 --echo";
    let prompt = |options: &str| context.run(&format!("{line} {options}")).succeeded().to_owned();
    assert!(prompt("--template plain").starts_with("Jacob"));
    let variables = "--template-variable greeting=Hear --template-variable loud=true --template-variable n=3";
    assert!(prompt(&format!("--template greeting {variables}")).starts_with("Hear! Jacob4"));
    let outputs = [context.run(line), context.run(&format!("{line} --template other"))];
    for output in &outputs {
        assert!(output.refused().contains("the model has: greeting, plain"), "{output:#?}");
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn a_trace_says_what_the_runtime_did_when() {
    let context = context_with_artifact("jetmoe-mini");
    for (backend, named) in [("ort", "MatMul"), ("tract", "decode 2")] {
        let line = "jetmoe run --model artifact --prompt x --max-new-tokens 3 --trace trace.json --backend";
        context.run(&format!("{line} {backend}")).succeeded();
        let text = fs::read_to_string(context.path("trace.json")).unwrap();
        let trace: Value = serde_json::from_str(&text).unwrap();
        let is_span = |event: &&Value| event["ph"] == "X" && event["dur"].is_number();
        assert!(trace.as_array().unwrap().iter().filter(is_span).count() > 3, "{backend}: {text}");
        assert!(text.contains(named), "{backend}: {text}");
        // nothing else is left behind
        assert_eq!(context.files("").iter().filter(|file| file.starts_with("trace")).count(), 1);
    }
}

#[test]
fn the_old_spelling_of_trace_still_works() {
    let context = context_with_artifact("jetmoe-mini");
    let output = context.run("jetmoe run --model artifact --prompt x --profile-trace nothing/trace.json");
    assert!(output.refused().contains("cannot write the trace nothing/trace.json"), "{}", output.refused());
}

#[test]
fn a_trace_that_cannot_be_written_is_refused() {
    let context = context_with_artifact("jetmoe-mini");
    let lines = [
        "jetmoe run --model artifact --prompt x --trace nothing/trace.json",
        "jetmoe run --model artifact --prompt x --trace trace.json --backend reference",
        "jetmoe run --model jetmoe-mini --prompt x --trace trace.json",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}
