from onebase.cli import main

main()
