package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// confirmation is the flag that answers beforehand. Only people at a terminal are asked: scripts mean what they say.
type confirmation struct{ yes bool }

func (c *confirmation) addFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask, at a terminal either")
}

// errNotConfirmed is that somebody has thought better of it.
var errNotConfirmed = errors.New("nothing was deleted; --yes goes on without asking")

// ask asks whether to go on with what is described.
func (c *confirmation) ask(e *env, format string, args ...any) error {
	if c.yes || !e.terminal {
		return nil
	}
	fmt.Fprintf(e.stderr, format+" Go on? [y/N] ", args...)
	answer, err := bufio.NewReader(io.LimitReader(e.stdin, 100)).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errNotConfirmed
}
