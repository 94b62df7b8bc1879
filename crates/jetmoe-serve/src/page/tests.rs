use std::collections::BTreeSet;
use std::path::Path as FilePath;

use super::*;

fn get_with(held: Option<&str>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(held) = held {
        headers.insert(IF_NONE_MATCH, held.parse().unwrap());
    }
    respond(&FILES[0], &headers)
}

#[test]
fn every_file_of_the_page_is_served() {
    let folder = FilePath::new(env!("CARGO_MANIFEST_DIR")).join("page");
    let there = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let there: BTreeSet<String> = there.map(|name| name.to_string_lossy().into_owned()).collect();
    let served: BTreeSet<String> = FILES.iter().map(|file| file.name.to_owned()).collect();
    assert_eq!(there, served);
}

#[test]
fn a_file_that_is_imported_or_linked_is_served() {
    for file in &FILES {
        let paths = file.text.split('"').filter_map(|part| {
            part.strip_prefix("./").filter(|_| file.content_type == SCRIPT).or(part.strip_prefix("page/"))
        });
        for path in paths {
            assert!(FILES[1..].iter().any(|served| served.name == path), "{path}, which {} names", file.name);
        }
    }
}

#[test]
fn nothing_is_loaded_from_outside() {
    for file in &FILES {
        for scheme in ["http://", "https://", "//cdn", "data:", "javascript:"] {
            let uses = file.text.lines().filter(|line| line.contains(scheme));
            let uses: Vec<_> = uses
                .filter(|line| {
                    !line.trim_start().starts_with("//") && !line.contains("http://www.w3.org/2000/svg")
                })
                .collect();
            assert!(uses.is_empty(), "{} names {scheme}: {uses:?}", file.name);
        }
    }
    assert!(
        POLICY.starts_with("default-src 'none';") && !POLICY.contains("unsafe") && !POLICY.contains("http")
    );
}

#[test]
fn the_page_needs_no_inline_script_or_style_which_the_policy_forbids() {
    let page = FILES[0].text;
    assert!(!page.contains("<style") && !page.contains(" style="), "{page}");
    let handler = |rest: &str| {
        rest.split_once('=').is_some_and(|(name, _)| name.chars().all(|letter| letter.is_ascii_alphabetic()))
    };
    assert!(!page.split(" on").skip(1).any(handler), "{page}");
    assert_eq!(page.matches("<script").count(), page.matches("<script type=\"module\" src=").count());
    let markup = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("];
    for file in FILES.iter().filter(|file| file.content_type == SCRIPT) {
        for sink in markup {
            assert!(!file.text.contains(sink), "{} uses {sink}", file.name);
        }
    }
}

#[test]
fn a_browser_that_has_the_file_gets_no_body() {
    let first = get_with(None);
    assert_eq!(first.status(), StatusCode::OK);
    assert_eq!(first.headers()[CONTENT_TYPE], HTML);
    assert_eq!(first.headers()[CONTENT_SECURITY_POLICY], POLICY);
    let tag = first.headers()[ETAG].to_str().unwrap().to_owned();
    for held in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
        let again = get_with(Some(&held));
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED, "{held}");
        assert_eq!(again.headers()[ETAG], tag.as_str());
        assert!(again.headers().get(CONTENT_TYPE).is_none());
    }
    assert_eq!(get_with(Some("\"other\"")).status(), StatusCode::OK);
}

#[test]
fn files_with_other_texts_have_other_tags() {
    let tags: BTreeSet<String> = FILES.iter().map(|file| entity_tag(file.text)).collect();
    assert_eq!(tags.len(), FILES.len());
}
