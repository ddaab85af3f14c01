//! A picture as a document of its own inside of the page.

use anyhow::{Context, Result, bail};
use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event;
use sha2::{Digest, Sha256};

/// An SVG in an HTML document.
pub(super) struct Embedded {
    pub(super) title: String,
    pub(super) document: String,
    pub(super) width: String,
    pub(super) height: String,
    /// The hashes of its scripts, as in a content security policy.
    pub(super) scripts: Vec<String>,
}

#[derive(Template)]
#[template(path = "picture.html")]
struct Document<'a> {
    title: &'a str,
    svg: &'a str,
}

impl Embedded {
    /// From an SVG that gilspy has written.
    pub(super) fn new(title: &str, svg: Vec<u8>) -> Result<Self> {
        let svg = String::from_utf8(svg)?;
        let (mut size, mut scripts) = (None, Vec::new());
        let mut reader = Reader::from_str(&svg);
        loop {
            match reader.read_event().context("cannot read a picture")? {
                Event::Eof => break,
                Event::Start(start) => {
                    let attribute = |name| -> Result<Option<String>> {
                        Ok(start.try_get_attribute(name)?.map(|found| found.value.into_owned()))
                    };
                    if size.is_none() {
                        size = attribute("width")?.zip(attribute("height")?);
                    }
                    if start.name().as_ref() == "script"
                        && attribute("type")?.is_none_or(|kind| !kind.contains("json"))
                    {
                        scripts.push(hash(&text(&mut reader)?));
                    }
                }
                _ => {}
            }
        }
        let Some((width, height)) = size else { bail!("a picture has no size") };
        let document = Document { title, svg: &svg }.render()?;
        Ok(Embedded { title: title.to_owned(), document, width, height, scripts })
    }
}

/// The text up to the end of the element that was begun.
fn text(reader: &mut Reader<&[u8]>) -> Result<String> {
    let mut text = String::new();
    loop {
        match reader.read_event()? {
            Event::Text(part) => text.push_str(&part),
            Event::CData(part) => text.push_str(&part),
            Event::GeneralRef(name) => text.push_str(&unescape(&format!("&{};", &*name))?),
            Event::End(_) | Event::Eof => return Ok(text),
            _ => {}
        }
    }
}

/// A script's hash, as in a content security policy.
pub(super) fn hash(script: &str) -> String {
    STANDARD.encode(Sha256::digest(script))
}
