package main

import (
	"embed"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// helpPages are the pages of `dpopgate help TOPIC`: Markdown that reads well in a repository, too.
//
//go:embed help/*.md
var helpPages embed.FS

// pageWidth is how long a line of help may be.
const pageWidth = 96

// topic is a page of help.
type topic struct{ name, title, text string }

// topics are all pages, by name.
func topics() []topic {
	files, err := fs.Glob(helpPages, "help/*.md")
	if err != nil {
		panic(err) // the pattern is a constant
	}
	var all []topic
	for _, file := range files {
		text, err := helpPages.ReadFile(file)
		if err != nil {
			panic(err) // it has just been listed
		}
		title, _, _ := strings.Cut(string(text), "\n")
		all = append(all, topic{strings.TrimSuffix(path.Base(file), ".md"), strings.TrimPrefix(title, "# "), string(text)})
	}
	return all
}

func newHelpCommand(e *env) *cobra.Command {
	var names []string
	for _, t := range topics() {
		names = append(names, t.name)
	}
	return &cobra.Command{
		Use:   "help [COMMAND | TOPIC]",
		Short: "About a command, or a topic: " + strings.Join(names, ", "),
		Long:  "Prints the help of a command, or a page about a topic. Alone it lists both.",
		Example: `  dpopgate help token issue
  dpopgate help reasons`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return completeHelp(cmd.Root(), args, names), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return listHelp(cmd.Root(), e.stdout)
			}
			about, rest, err := cmd.Root().Find(args)
			if err == nil && about != cmd.Root() && len(rest) == 0 {
				return about.Help()
			}
			if i := slices.IndexFunc(topics(), func(t topic) bool { return t.name == args[0] }); i >= 0 && len(args) == 1 {
				_, err := io.WriteString(e.stdout, plainPage(topics()[i].text, e.terminal))
				return err
			}
			return usagef("no help on %q: it is neither a command nor one of the topics %s", strings.Join(args, " "), strings.Join(names, ", "))
		},
	}
}

// completeHelp are the words that can follow.
func completeHelp(root *cobra.Command, args, names []string) []string {
	if len(args) == 0 {
		for _, c := range root.Commands() {
			if c.IsAvailableCommand() {
				names = append(names, c.Name())
			}
		}
		return names
	}
	about, rest, err := root.Find(args)
	if err != nil || len(rest) > 0 {
		return nil
	}
	var below []string
	for _, c := range about.Commands() {
		below = append(below, c.Name())
	}
	return below
}

// listHelp is the help of the program, with the topics.
func listHelp(root *cobra.Command, w io.Writer) error {
	if err := root.Help(); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nTopics, for dpopgate help TOPIC:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, topic := range topics() {
		fmt.Fprintf(t, "  %s\t%s\n", topic.name, topic.title)
	}
	return t.Flush()
}

var (
	markdownLink = regexp.MustCompile(`\[([^\]]*)\]\(([^)\s]*)\)`)
	tableRule    = regexp.MustCompile(`^\|[\s:|-]+\|$`)
	listItem     = regexp.MustCompile(`^(\s*)([-*]|\d+\.) +`)
)

// plainPage is Markdown as a terminal shows it: paragraphs and lists wrapped, each row of a table as its first cell with
// the others below it, code as it is. Headings are bold when that is wanted.
func plainPage(markdown string, bold bool) string {
	p := page{bold: bold}
	fenced := false
	for line := range strings.Lines(markdown) {
		line = strings.TrimRight(line, " \n")
		switch item := listItem.FindString(line); {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			p.flush()
			fenced = !fenced
		case fenced:
			p.b.WriteString("    " + line + "\n")
		case line == "" || strings.HasPrefix(line, "<"):
			p.flush()
			p.gap()
		case strings.HasPrefix(line, "#"):
			p.flush()
			p.heading(line)
		case strings.HasPrefix(line, "|"):
			p.flush()
			p.row(line)
		case item != "":
			p.flush()
			p.indent, p.pending = strings.Replace(item, "* ", "- ", 1), line[len(item):]
		default:
			p.pending = strings.TrimSpace(p.pending + " " + strings.TrimSpace(line))
		}
	}
	p.flush()
	return strings.TrimRight(p.b.String(), "\n") + "\n"
}

// page is what has been written of a page, and the paragraph that is being read.
type page struct {
	b               strings.Builder
	bold            bool
	indent, pending string
	columns         []string // of the table that is being read, without the first; nil: none
}

// flush writes the paragraph that was read.
func (p *page) flush() {
	if p.pending != "" {
		p.b.WriteString(wrapped(p.indent, plainText(p.pending)) + "\n")
	}
	p.indent, p.pending = "", ""
}

// gap is an empty line, and the end of a table.
func (p *page) gap() {
	p.columns = nil
	if !strings.HasSuffix(p.b.String(), "\n\n") {
		p.b.WriteString("\n")
	}
}

func (p *page) heading(line string) {
	text := plainText(strings.TrimLeft(line, "# "))
	if !p.bold {
		p.b.WriteString(text + "\n")
		return
	}
	p.b.WriteString("\x1b[1m" + text + "\x1b[0m\n")
}

// row writes a row of a table. The first one names the columns, and the one below it is a rule.
func (p *page) row(line string) {
	if tableRule.MatchString(line) {
		return
	}
	cells := strings.Split(strings.ReplaceAll(strings.Trim(line, "| "), `\|`, "\x00"), "|")
	for i := range cells {
		cells[i] = plainText(strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|"))
	}
	if p.columns == nil {
		p.columns = cells[1:]
		return
	}
	p.b.WriteString(wrapped("  ", cells[0]) + "\n")
	for i, cell := range cells[1:] {
		name := ""
		if len(cells) > 2 && i < len(p.columns) && p.columns[i] != "" {
			name = p.columns[i] + ": "
		}
		p.b.WriteString(wrapped("      ", name+cell) + "\n")
	}
}

// plainText is a line without the marks of Markdown: a link is its text, with its address when that is elsewhere.
func plainText(s string) string {
	s = markdownLink.ReplaceAllStringFunc(s, func(link string) string {
		m := markdownLink.FindStringSubmatch(link)
		if strings.Contains(m[2], "://") && m[1] != m[2] {
			return m[1] + " (" + m[2] + ")"
		}
		return m[1]
	})
	return strings.NewReplacer("**", "", "`", "").Replace(s)
}

// wrapped is text in lines, the first with a prefix and the others as far in.
func wrapped(prefix, text string) string {
	var b strings.Builder
	b.WriteString(prefix)
	indent := strings.Repeat(" ", len(prefix))
	column := len(prefix)
	for i, word := range strings.Fields(text) {
		n := len([]rune(word))
		switch {
		case i == 0:
		case column+1+n > pageWidth:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteString(" ")
			column++
		}
		b.WriteString(word)
		column += n
	}
	return b.String()
}
