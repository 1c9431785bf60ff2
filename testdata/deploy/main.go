// Command deploy reads deployment files as the tools that they are for do, and fails where one of those would complain.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: deploy compose|kubernetes FILE")
		os.Exit(2)
	}
	check, ok := map[string]func(string) error{"compose": compose, "kubernetes": kubernetes}[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "deploy: no such kind of file")
		os.Exit(2)
	}
	if err := check(os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "deploy:", err)
		os.Exit(1)
	}
}

// compose loads a file with the loader of Docker Compose: its schema, references between services, networks, secrets.
func compose(path string) error {
	o, err := cli.NewProjectOptions([]string{path})
	if err != nil {
		return err
	}
	p, err := o.LoadProject(context.Background())
	if err != nil {
		return err
	}
	for _, name := range p.ServiceNames() {
		fmt.Println("service", name)
	}
	return nil
}

// kubernetes decodes each document into the type of its kind, strictly: an unknown or a double field is an error.
func kubernetes(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(scheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	defer documents.Close()
	buffer := make([]byte, 1<<20)
	for {
		n, err := documents.Read(buffer)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		object, kind, err := decoder.Decode(buffer[:n], nil, nil)
		if err != nil && !runtime.IsNotRegisteredError(err) {
			return err
		}
		if err != nil || object == nil {
			return fmt.Errorf("a document of an unknown kind: %w", err)
		}
		fmt.Println(kind.Kind)
	}
}
