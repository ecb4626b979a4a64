//! The commands that work on a store while no proxy uses it.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufWriter, Write as _},
    path::Path,
    sync::mpsc,
};

use anyhow::{Context as _, bail};
use service::process::{print, print_on};

use crate::{
    cli::{ExportArgs, ImportArgs, PruneArgs, PurgeArgs, ShowArgs},
    har,
    keep::{self, Keeper},
    key::Keys,
    rules::Rules,
    store::{Durability, Kind, Row, Store, Writer, reader, verify},
};

/// Writes a HAR file.
pub(crate) fn export(args: &ExportArgs) -> anyhow::Result<()> {
    let store = open(&args.store.path)?;
    let sessions = store.sessions()?;
    let Some((_, session, _)) = sessions.iter().find(|(name, ..)| *name == args.session) else {
        let names: Vec<&str> = sessions.iter().map(|(name, ..)| name.as_str()).collect();
        bail!(
            "there is no session '{}'; there are: {}",
            args.session,
            names.join(", ")
        );
    };
    let path = args.file.display();
    let file = File::create(&args.file).with_context(|| format!("could not write '{path}'"))?;
    let mut file = BufWriter::new(file);
    let exported = har::export(&store.files, &mut file, |each| {
        store.each(Some(*session), |row| {
            if row.kind == Kind::Recorded {
                each(row);
            }
        });
    });
    let (count, bad) = exported.with_context(|| format!("could not write '{path}'"))?;
    file.flush()
        .with_context(|| format!("could not write '{path}'"))?;
    print(&format!("{count} exchanges written to '{path}'"))?;
    complain(&bad)
}

/// Reads a HAR file.
pub(crate) fn import(args: &ImportArgs) -> anyhow::Result<()> {
    let rules = args
        .rules
        .as_deref()
        .map(Rules::read)
        .transpose()?
        .unwrap_or_default();
    let path = args.file.display();
    let text = std::fs::read(&args.file).with_context(|| format!("could not read '{path}'"))?;
    let store = Store::open(&args.store.path, Durability::Process)?;
    let session = store.session(&args.session)?;
    let keys = Keys::new(rules, store.secret);
    let keeper = Keeper::new(keys, store.files.clone(), session, store.next_id);
    let imported = har::import(&text, &keeper).with_context(|| format!("'{path}'"))?;
    let (unanswered, without_body) = (imported.unanswered, imported.without_body);
    let writer = Writer::start(store)?;
    let (done_in, done) = mpsc::channel();
    let mut bad = Vec::new();
    let mut count = 0;
    for exchange in imported.exchanges {
        let (key, _) = keep::key(&keeper.keys, &exchange);
        let target = exchange.question.target.clone();
        match keep::row(&keeper, exchange, Kind::Recorded, key) {
            Ok((row, files)) => {
                let done_in = done_in.clone();
                writer.put(
                    row,
                    files,
                    Box::new(move |stored| drop(done_in.send(stored))),
                );
                count += 1;
            }
            Err(error) => bad.push(format!("{target}: {error}")),
        }
    }
    drop(done_in);
    bad.extend(
        done.iter()
            .filter_map(Result::err)
            .map(|error| error.to_string()),
    );
    close(&writer)?;
    print(&format!(
        "{count} exchanges imported into session '{}'; {unanswered} without an answer left out; \
         {without_body} without the body that they had",
        args.session
    ))?;
    complain(&bad)
}

/// Lists sessions and rows.
pub(crate) fn list(path: &Path) -> anyhow::Result<()> {
    let store = open(path)?;
    let sessions = store.sessions()?;
    for (name, _, count) in &sessions {
        let s = if *count == 1 { "" } else { "s" };
        print(&format!("session '{name}': {count} recording{s}"))?;
    }
    let mut printed = Ok(());
    let refused = store.each(None, |row| {
        if printed.is_err() {
            return;
        }
        let session = sessions.iter().find(|(_, id, _)| *id == row.session);
        let place = match row.kind {
            Kind::Cached => "cached",
            Kind::Recorded => session.map_or("?", |(name, ..)| name.as_str()),
        };
        let Row {
            id,
            method,
            target,
            body_bytes,
            head,
            ..
        } = row;
        printed = print(&format!(
            "{id}\t{place}\t{method} {target}\t{}\t{body_bytes} bytes",
            head.status
        ));
    });
    printed?;
    complain(&refused)
}

/// Prints an exchange.
pub(crate) fn show(args: &ShowArgs) -> anyhow::Result<()> {
    let store = open(&args.store.path)?;
    let Some(row) = reader::row(&store.database, args.id)? else {
        bail!("there is no row {}; 'list' shows all", args.id);
    };
    let request = reader::body(&row.request_body, &row.request_digest, &store.files)?;
    let answer = reader::body(&row.body, &row.digest, &store.files)?;
    let mut out = std::io::stdout().lock();
    let line = format!("{} {} HTTP/1.1\r\n", row.method, row.target);
    for part in [
        line.as_bytes(),
        &row.request_fields,
        b"\r\n",
        &request,
        row.head.bytes(),
        b"\r\n",
        &answer,
        row.trailers.as_deref().unwrap_or_default(),
    ] {
        print_on(&mut out, part)?;
    }
    Ok(())
}

/// Checks digests. Returns whether everything is whole.
pub(crate) fn verify(path: &Path) -> anyhow::Result<bool> {
    let store = open(path)?;
    let verify::Verified { good, bad } = verify::verify(&store);
    print(&format!("{good} answers are whole, {} are not", bad.len()))?;
    bad.iter()
        .try_for_each(|line| print(&format!("  {line}")))?;
    Ok(bad.is_empty())
}

/// Deletes recordings but for the last ones of each key.
pub(crate) fn prune(args: &PruneArgs) -> anyhow::Result<()> {
    let store = open(&args.store.path)?;
    let mut by_key: HashMap<(i64, Vec<u8>), Vec<u64>> = HashMap::new();
    store.each(None, |row| {
        if row.kind == Kind::Recorded {
            by_key
                .entry((row.session, row.key))
                .or_default()
                .push(row.id);
        }
    });
    let mut over = Vec::new();
    for mut ids in by_key.into_values() {
        ids.sort_unstable();
        let stays = ids.len().saturating_sub(args.keep);
        over.extend(&ids[..stays]);
    }
    delete(store, over)
}

/// Deletes what is stored for some targets.
pub(crate) fn purge(args: &PurgeArgs) -> anyhow::Result<()> {
    let store = open(&args.store.path)?;
    let mut over = Vec::new();
    store.each(None, |row| {
        if row.target.starts_with(&args.prefix) {
            over.push(row.id);
        }
    });
    delete(store, over)
}

fn delete(store: Store, over: Vec<u64>) -> anyhow::Result<()> {
    let count = over.len();
    let writer = Writer::start(store)?;
    let (done_in, done) = mpsc::channel();
    writer.delete(over, Box::new(move |deleted| drop(done_in.send(deleted))));
    if let Ok(Err(error)) = done.recv() {
        bail!("the store could not be written: {error}");
    }
    close(&writer)?;
    print(&format!("{count} deleted"))
}

fn open(path: &Path) -> anyhow::Result<Store> {
    Ok(Store::open_old(path, Durability::Process)?)
}

/// Waits until everything is written.
fn close(writer: &Writer) -> anyhow::Result<()> {
    let (closed_in, closed) = mpsc::channel();
    writer.close(Box::new(move |_| {
        closed_in.send(()).ok();
    }));
    closed.recv().context("the store's thread has ended")
}

/// Fails if there is anything that could not be used.
fn complain(bad: &[String]) -> anyhow::Result<()> {
    match bad {
        [] => Ok(()),
        bad => bail!("what can't be used:\n  {}", bad.join("\n  ")),
    }
}
