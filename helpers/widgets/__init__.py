"""The playground: `playground` holds plain functions, `app` the ipywidgets around them."""
