package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// manCommand is for those who package weir.
func manCommand() *cli.Command {
	return &cli.Command{
		Name:      "man",
		Usage:     "write manual pages, one for weir and one for each command",
		ArgsUsage: "DIRECTORY",
		Hidden:    true,
		Action: func(c *cli.Context) error {
			if c.NArg() != 1 {
				return errors.New("name one directory: weir man DIRECTORY")
			}
			for name, text := range manPages(c.App) {
				if err := os.WriteFile(filepath.Join(c.Args().First(), name), []byte(text), 0o644); err != nil {
					return fmt.Errorf("write manual page: %w", err)
				}
			}
			return nil
		},
	}
}

// manPages returns the text of all pages, in the macros of man(7), by file name.
func manPages(app *cli.App) map[string]string {
	pages := make(map[string]string)
	var see []string
	for _, c := range app.VisibleCommands() {
		if c.Name == "help" {
			continue
		}
		p := newManPage(app, "weir-"+c.Name, c.Usage)
		p.command("weir "+c.Name, c)
		p.section("SEE ALSO")
		p.text("weir(8), weir.yaml(5)")
		pages["weir-"+c.Name+".8"] = p.String()
		see = append(see, "weir-"+c.Name+"(8)")
	}
	p := newManPage(app, "weir", app.Usage)
	p.section("SYNOPSIS")
	p.line(".B weir\n.I command\n.RI [ options ]\n.RI [ arguments ]")
	p.section("COMMANDS")
	for _, c := range app.VisibleCommands() {
		if c.Name != "help" {
			p.item("weir "+c.Name, c.Usage)
		}
	}
	p.section("SEE ALSO")
	p.text(strings.Join(see, ", ") + ", weir.yaml(5)")
	pages["weir.8"] = p.String()
	return pages
}

// manPage is the page that is being written.
type manPage struct{ strings.Builder }

func newManPage(app *cli.App, name, usage string) *manPage {
	p := &manPage{}
	p.line(fmt.Sprintf(".TH %s 8 \"\" \"weir %s\" \"weir\"", strings.ToUpper(name), escape(app.Version)))
	p.section("NAME")
	p.line(escape(name) + ` \- ` + escape(usage))
	return p
}

// command describes a command, and in subsections those below it.
func (p *manPage) command(name string, c *cli.Command) {
	p.section("SYNOPSIS")
	p.synopsis(name, c)
	if c.Description != "" {
		p.section("DESCRIPTION")
		p.text(c.Description)
	}
	if flags := c.VisibleFlags(); len(flags) > 0 {
		p.section("OPTIONS")
		p.flags(flags)
	}
	if below := c.VisibleCommands(); len(below) > 0 {
		p.section("COMMANDS")
		for _, b := range below {
			p.line(".SS " + escape(name+" "+b.Name))
			p.synopsis(name+" "+b.Name, b)
			p.line(".PP")
			p.text(strings.TrimSpace(sentence(b.Usage) + "\n\n" + b.Description))
			p.flags(b.VisibleFlags())
		}
	}
}

func (p *manPage) synopsis(name string, c *cli.Command) {
	p.line(".B " + escape(name))
	if len(c.VisibleFlags()) > 0 {
		p.line(".RI [ options ]")
	}
	if c.ArgsUsage != "" {
		p.line(".I " + escape(c.ArgsUsage))
	}
	if c.ArgsUsage == "" && len(c.VisibleCommands()) > 0 {
		p.line(".I command")
	}
}

func (p *manPage) flags(flags []cli.Flag) {
	for _, f := range flags {
		d, ok := f.(cli.DocGenerationFlag)
		if !ok || slices.Contains(f.Names(), "help") {
			continue
		}
		var names []string
		for _, name := range f.Names() {
			names = append(names, dashed(name))
		}
		// A word in backquotes is what the value is called, as in cli's own help.
		usage, value := d.GetUsage(), ""
		if parts := strings.SplitN(usage, "`", 3); len(parts) == 3 {
			value, usage = " "+parts[1], parts[0]+parts[1]+parts[2]
		} else if d.TakesValue() {
			value = " VALUE"
		}
		usage = sentence(usage)
		if def := d.GetDefaultText(); d.TakesValue() && def != "" && def != `""` {
			usage += " Default: " + def + "."
		}
		if env := d.GetEnvVars(); len(env) > 0 {
			usage += " Also by the environment: " + strings.Join(env, ", ") + "."
		}
		p.item(strings.Join(names, ", ")+value, usage)
	}
}

func (p *manPage) section(title string) { p.line(".SH " + title) }

// item is a term and what it means.
func (p *manPage) item(term, meaning string) {
	p.line(".TP\n.B " + escape(term))
	p.text(meaning)
}

// text writes paragraphs, lines as they are.
func (p *manPage) text(text string) {
	for line := range strings.SplitSeq(text, "\n") {
		switch {
		case line == "":
			p.line(".PP")
		case line[0] == ' ' || line[0] == '\t': // an example
			p.line(".br\n" + escape(line) + "\n.br")
		default:
			p.line(escape(line))
		}
	}
}

func (p *manPage) line(line string) { p.WriteString(line + "\n") }

// sentence makes one of a usage, which begins and ends without ceremony.
func sentence(usage string) string {
	if usage == "" {
		return ""
	}
	return strings.ToUpper(usage[:1]) + usage[1:] + "."
}

// escape makes text stand for itself: a backslash, a dash that is one to copy, and a
// line that would begin as a request does.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	return text
}
